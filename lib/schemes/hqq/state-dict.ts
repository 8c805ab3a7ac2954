import type { LinearSite, TensorSpec } from '../../containers/container.js';
import { storedFloat, storedType } from '../../containers/stored-types.js';
import type { ResolvedQuantConfig } from '../../matrix/config.js';
import { DTYPES } from '../../matrix/dtype.js';
import { formatNamed, type PackFormat, type Packing, packedRows } from '../../matrix/format.js';
import type { Geometry } from '../../matrix/geometry.js';
import { solverNamed } from '../../solvers/solvers.js';
import type { LayerForm, PlannedLayer, WholeTensor } from '../scheme.js';
import { flag, float, integer, integers, text } from '../small.js';
import { byteMetaConstants, byteMetaSpecs, metaShape } from './byte-meta.js';

// A quantized layer as Python's hqq writes it: 19 tensors, of which `W_q`, `scale` and `zero` are large and the others say how
// to read them. transformers 4.46 to 4.57 fail on one key less and on one more. (Where scales and zeros are quantized themselves,
// others stand in their place: byte-meta.ts.)

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

/** Scales and zeros are quantized themselves: see byte-meta.ts. */
export function hasByteMeta({ config }: HqqForm): boolean {
  return config.metaBits === 8;
}

/** The groups of a layer. */
export const groupsOf = ({ config: { axis }, geometry: { groups } }: HqqForm) => ({ axis, groups });

/** `W_q`, `scale` and `zero`, or what these become: tensors whose bytes the weights tell. */
export function largeSpecs({ site, form }: HqqParts): readonly TensorSpec[] {
  const { config, geometry, metaDtype } = form;
  const { rows, cols, groups } = geometry;
  const format = formatOf(form);
  const words = storedType(format.wordBytes === 1 ? 'U8' : 'I32');
  const codes = { name: `${site.name}.W_q`, type: words, shape: [packedRows(format, rows), cols] };
  if (hasByteMeta(form)) return [codes, ...byteMetaSpecs(site.name, groupsOf(form))];
  const meta = { type: storedFloat(metaDtype), shape: metaShape(config.axis, groups) };
  return [codes, { name: `${site.name}.scale`, ...meta }, { name: `${site.name}.zero`, ...meta }];
}

/** The other keys. */
export function smallTensors({ site, form }: HqqParts): readonly WholeTensor[] {
  const { config, metaDtype } = form;
  const format = formatOf(form);
  const values = {
    shape: integers(site.shape),
    // Python stores the type of its number: 1.58 is a float, others are integers.
    nbits: Number.isInteger(config.nbits) ? integer(config.nbits) : float(config.nbits),
    group_size: integer(config.groupSize),
    axis: integer(config.axis),
    packing: text(format.packing),
    unpack_view_dtype: text(format.wordBytes === 1 ? 'torch.uint8' : 'torch.int32'),
    compute_dtype: text(DTYPES[metaDtype].torch),
    view_as_float: flag(false),
    quant_scale: flag(hasByteMeta(form)),
    quant_zero: flag(hasByteMeta(form)),
    offload_meta: flag(false),
    channel_wise: flag(true),
    optimize: flag(isOptimized(config)),
    round_zero: flag(config.roundZero),
    encoded_state_dict: flag(true), // counts by being there
    stores_quant_config: flag(true),
    ...(site.stored === 'in-out' ? { [TRANSPOSED]: flag(true) } : {}),
    ...(site.weight.name === site.name ? { [BARE]: flag(true) } : {}),
  };
  const own = Object.entries(values).map(([key, value]) => ({ name: `${site.name}.${key}`, ...value }));
  return hasByteMeta(form) ? [...own, ...byteMetaConstants(site.name, groupsOf(form), metaDtype)] : own;
}

/** What the reference calls `optimize`: whether a solver moved the zero points. */
export function isOptimized({ solver }: ResolvedQuantConfig): boolean {
  return solverNamed(solver).optimizes;
}
