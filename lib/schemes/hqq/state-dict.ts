import type { LinearSite, TensorSpec } from '../../containers/container.js';
import { storedFloat, storedType } from '../../containers/stored-types.js';
import type { ResolvedQuantConfig } from '../../matrix/config.js';
import { DTYPES } from '../../matrix/dtype.js';
import { formatNamed, type PackFormat, type Packing, packedRows } from '../../matrix/format.js';
import type { Geometry } from '../../matrix/geometry.js';
import { solverNamed } from '../../solvers/solvers.js';
import type { LayerForm, PlannedLayer, WholeTensor } from '../scheme.js';

// A quantized layer as Python's hqq writes it: 19 tensors, of which `W_q`, `scale` and `zero` are large and the others say how
// to read them. transformers 4.46 to 4.57 fail on one key less and on one more.

/** How a layer is quantized and stored. */
export interface HqqForm extends LayerForm {
  readonly packing: Packing;
  readonly geometry: Geometry;
  /** Type of scale, zero and bias, and the one in which Python computes unless it is told otherwise. */
  readonly metaDtype: 'float16' | 'float32';
  /** Whether that is as asked for. Else float16 is where to begin, and the weights tell whether it holds them. */
  readonly settled: boolean;
}

export type HqqLayer = PlannedLayer<HqqForm>;

/** What its tensors depend on. */
export interface HqqParts {
  readonly site: Pick<LinearSite, 'name' | 'shape' | 'stored'> & { readonly weight: { readonly name: string } };
  readonly form: HqqForm;
}

/** How codes sit in words. */
export function formatOf({ packing }: HqqForm): PackFormat {
  return formatNamed(packing)!;
}

/** Names of all keys but `bias`, as Python's `state_dict_keys` has them. */
export const LAYER_KEYS = [
  'W_q',
  'scale',
  'zero',
  'shape',
  'nbits',
  'group_size',
  'axis',
  'packing',
  'unpack_view_dtype',
  'compute_dtype',
  'view_as_float',
  'quant_scale',
  'quant_zero',
  'offload_meta',
  'channel_wise',
  'optimize',
  'round_zero',
  'encoded_state_dict',
  'stores_quant_config',
] as const;

/**
 * A key of ours, of layers whose weight the original has as `[in, out]`: U8, 1. Python has no such layers: its loaders take
 * nn.Linear only, and would not take these without the key either.
 */
export const TRANSPOSED = 'transposed';
/** A key of ours, of layers whose weight is not called `<module>.weight` but as the layer: U8, 1. */
export const BARE = 'bare';

/** Keys that only some layers have. */
export const MARKS = [TRANSPOSED, BARE] as const;

const U8 = storedType('U8');

/** Shape of scale and of zero. */
export function metaShape(axis: 0 | 1, groups: number): readonly [number, number] {
  return axis === 1 ? [groups, 1] : [1, groups];
}

/** `W_q`, `scale` and `zero`, whose bytes come in chunks. */
export function largeSpecs({ site, form }: HqqParts): readonly TensorSpec[] {
  const { config, geometry, metaDtype } = form;
  const { rows, cols, groups } = geometry;
  const format = formatOf(form);
  const words = storedType(format.wordBytes === 1 ? 'U8' : 'I32');
  const meta = { type: storedFloat(metaDtype), shape: metaShape(config.axis, groups) };
  return [
    { name: `${site.name}.W_q`, type: words, shape: [packedRows(format, rows), cols] },
    { name: `${site.name}.scale`, ...meta },
    { name: `${site.name}.zero`, ...meta },
  ];
}

/** The other sixteen keys. */
export function smallTensors({ site, form }: HqqParts): readonly WholeTensor[] {
  const { config, metaDtype } = form;
  const format = formatOf(form);
  const { shape } = site;
  const text = (value: string) => ({ type: U8, shape: [value.length], bytes: Buffer.from(value, 'latin1') });
  const flag = (value: boolean) => ({ type: U8, shape: [], bytes: Uint8Array.of(value ? 1 : 0) });
  const word = (type: string, fill: (view: DataView) => void) => {
    return { type: storedType(type), shape: [], bytes: littleEndian(4, fill) };
  };
  const integer = (value: number) => word('I32', (view) => view.setInt32(0, value, true));
  const float = (value: number) => word('F32', (view) => view.setFloat32(0, value, true));
  const both = littleEndian(16, (view) => shape.forEach((size, i) => view.setBigInt64(i * 8, BigInt(size), true)));
  const values = {
    shape: { type: storedType('I64'), shape: [2], bytes: both },
    // Python stores the type of its number: 1.58 is a float, others are integers.
    nbits: Number.isInteger(config.nbits) ? integer(config.nbits) : float(config.nbits),
    group_size: integer(config.groupSize),
    axis: integer(config.axis),
    packing: text(format.packing),
    unpack_view_dtype: text(format.wordBytes === 1 ? 'torch.uint8' : 'torch.int32'),
    compute_dtype: text(DTYPES[metaDtype].torch),
    view_as_float: flag(false),
    quant_scale: flag(false),
    quant_zero: flag(false),
    offload_meta: flag(false),
    channel_wise: flag(true),
    optimize: flag(isOptimized(config)),
    round_zero: flag(config.roundZero),
    encoded_state_dict: flag(true), // counts by being there
    stores_quant_config: flag(true),
    ...(site.stored === 'in-out' ? { [TRANSPOSED]: flag(true) } : {}),
    ...(site.weight.name === site.name ? { [BARE]: flag(true) } : {}),
  };
  return Object.entries(values).map(([key, value]) => ({ name: `${site.name}.${key}`, ...value }));
}

/** What the reference calls `optimize`: whether a solver moved the zero points. */
export function isOptimized({ solver }: ResolvedQuantConfig): boolean {
  return solverNamed(solver).optimizes;
}

function littleEndian(length: number, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(length);
  fill(new DataView(bytes.buffer));
  return bytes;
}
