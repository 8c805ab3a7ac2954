import { pathOfFile, type TensorEntry, type TensorSource } from '../../containers/container.js';
import { layerOf, weightOf } from '../../containers/names.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { NBITS, type NBits } from '../../matrix/config.js';
import { DTYPE_NAMES, DTYPES } from '../../matrix/dtype.js';
import { FORMATS, formatNamed, type PackFormat, packedRows } from '../../matrix/format.js';
import { type Geometry, geometryOf } from '../../matrix/geometry.js';
import { formatError, quote } from '../../messages/text.js';
import { readSmall, type SmallValue } from '../scalar-tensors.js';
import type { LayerStorage, StoredLayer } from '../scheme.js';
import { BYTE_KEYS, BYTE_METAS, type ByteMeta } from './byte-meta.js';
import { describe, entriesOf, innerValues, neededFor, readMeta, type StoredMeta } from './read-meta.js';
import { BARE, LAYER_KEYS, MARKS, TRANSPOSED } from './state-dict.js';

/** A quantized layer of a model, checked: its large tensors have the sizes that its small ones say. */
export interface ReadLayer extends StoredLayer {
  readonly storage: LayerStorage & { readonly nbits: NBits };
  readonly format: PackFormat;
  readonly geometry: Geometry;
  readonly packed: TensorEntry;
  readonly scale: StoredMeta;
  readonly zero: StoredMeta;
}

/** The end of the name that every layer has one of. */
const CODES = '.W_q';

/** Names of the tensors that hold codes. */
export function namesOfCodes(source: Pick<TensorSource, 'entries'>): readonly string[] {
  return [...source.entries.keys()].filter((name) => name.endsWith(CODES) && name.length > CODES.length);
}

/**
 * Keys without which the codes cannot be read, beside those of scale and zero (`neededFor`). Python demands the others too, but
 * they say nothing about the numbers.
 */
const NEEDED = ['shape', 'nbits', 'group_size', 'axis', 'packing'] as const;

/** Keys whose values are read. The others are flags of the reference that change nothing here. */
const VALUES = [
  'shape',
  'nbits',
  'group_size',
  'axis',
  'packing',
  'compute_dtype',
  'view_as_float',
  'quant_scale',
  'quant_zero',
  'offload_meta',
  ...MARKS,
] as const;
type ValueKey = (typeof VALUES)[number];

const ALL_VALUES: readonly string[] = [...VALUES, ...BYTE_METAS.flatMap(innerValues)];

/**
 * Every quantized layer, in file order. Trusts nothing: what a layer says of itself is held against its tensors,
 * and text in it is compared with the texts there can be, never run (the reference runs it).
 *
 * @throws {HqqError} `ERR_CHECKPOINT_FORMAT`
 */
export async function readLayers(source: TensorSource, signal?: AbortSignal): Promise<readonly ReadLayer[]> {
  const { entries } = source;
  const modules = namesOfCodes(source).map((name) => name.slice(0, -CODES.length));
  const wanted: TensorEntry[] = [];
  for (const module of modules) {
    const has = (key: string) => entries.has(`${module}.${key}`);
    const needed = ['W_q', ...BYTE_METAS.flatMap((meta) => neededFor(meta, has)), ...NEEDED];
    const missing = needed.filter((key) => !has(key));
    if (missing.length > 0) {
      throw wrong(source, entries.get(`${module}.W_q`)!, module, `has W_q but no ${missing.join(', ')}`);
    }
    for (const key of ALL_VALUES) {
      const tensor = entries.get(`${module}.${key}`);
      if (tensor) wanted.push(tensor);
    }
    await yieldIfDue();
  }
  const values = await readSmall(source, wanted, signal);
  const layers: ReadLayer[] = [];
  for (const module of modules) {
    layers.push(readLayer(source, module, values));
    await yieldIfDue();
  }
  return layers;
}

function readLayer(source: TensorSource, module: string, values: ReadonlyMap<TensorEntry, SmallValue>): ReadLayer {
  const { entries } = source;
  const at = (key: string) => entries.get(`${module}.${key}`);
  const packed = at('W_q')!;
  const refuse = (message: string): never => {
    throw wrong(source, packed, module, message);
  };
  const text = (key: ValueKey): string | undefined => {
    const tensor = at(key);
    return tensor && values.get(tensor)!.text;
  };
  const numbers = (key: ValueKey): readonly number[] | undefined => {
    const tensor = at(key);
    return tensor && values.get(tensor)!.numbers;
  };
  const number = (key: ValueKey): number => {
    const list = numbers(key);
    if (list && list.length !== 1) refuse(`has ${list.length} numbers as ${key}, where one is needed`);
    return list?.[0] ?? 0;
  };

  if (number('offload_meta') !== 0) {
    refuse(
      'has scales and zeros that are kept apart (offload_meta), which is not supported. Save it with offload_meta off',
    );
  }
  const shape = numbers('shape')!;
  const [rows, cols] = shape;
  const count = (rows ?? 0) * (cols ?? 0);
  if (
    shape.length !== 2 ||
    !shape.every((size) => Number.isSafeInteger(size) && size > 0) ||
    !Number.isSafeInteger(count)
  ) {
    refuse(`has shape [${shape.slice(0, 8).join(', ')}], where two positive numbers are needed`);
  }
  const axis = number('axis');
  if (axis !== 0 && axis !== 1) return refuse(`has axis ${axis}, where 0 or 1 is needed`);
  const packing = text('packing')!;
  const format = formatNamed(packing);
  const known = FORMATS.map((row) => row.packing).join(', ');
  if (!format) return refuse(`has packing ${quote(packing)}, where one of ${known} is needed`);
  const nbits = bitsIn(number('nbits'), format);
  if (nbits === undefined) return refuse(`has nbits ${number('nbits')}, which ${format.packing} does not hold`);
  const groupSize = number('group_size');
  if (!Number.isSafeInteger(groupSize) || groupSize <= 0 || count % groupSize !== 0) {
    refuse(`has group_size ${groupSize}, which does not divide ${rows} x ${cols} weights`);
  }

  const turned = number(TRANSPOSED);
  if (turned !== 0 && turned !== 1) refuse(`has ${TRANSPOSED} ${turned}, where 0 or 1 is needed`);

  const matrix = [rows!, cols!] as const;
  const geometry = geometryOf(matrix, { groupSize, axis });
  const bare = number(BARE) !== 0;
  if (bare && layerOf(module) !== module) refuse('is marked as bare, though it is called as a weight');
  const bias = bare ? undefined : at('bias'); // a tensor that is called so is not its own
  const { groups } = geometry;
  const value = (key: string) => {
    const tensor = at(key);
    return tensor && values.get(tensor);
  };
  const metaOf = (meta: ByteMeta) => readMeta(meta, number(`quant_${meta}`) !== 0, { axis, groups, at, value, refuse });
  const [scale, zero] = [metaOf('scale'), metaOf('zero')];
  checkPacked(packed, format, geometry, number('view_as_float') !== 0, refuse);
  if (bias && (bias.type.float === undefined || !sameShape(bias.shape, [matrix[0]]))) {
    refuse(`has ${describe(bias)} as bias, where a floating-point [${matrix[0]}] is needed`);
  }
  if (entries.has(weightOf(module, bare))) refuse('has both a weight and codes of one');
  const metaDtype = (scale.sets?.scale ?? scale.values).type.float!;
  const declared = text('compute_dtype');
  const computeDtype =
    declared === undefined ? metaDtype : DTYPE_NAMES.find((dtype) => DTYPES[dtype].torch === declared);
  if (!computeDtype) {
    const dtypes = DTYPE_NAMES.map((dtype) => DTYPES[dtype].torch).join(', ');
    return refuse(`has compute_dtype ${quote(declared!)}, where one of ${dtypes} is needed`);
  }
  const parts = [packed, ...entriesOf(scale), ...entriesOf(zero)];
  const bits = parts.reduce((sum, { begin, end }) => sum + 8 * (end - begin), 0);
  return {
    ...{ scheme: 'hqq', name: module, bare, shape: matrix, stored: turned === 1 ? 'in-out' : 'out-in' },
    entries: [
      packed,
      ...[...LAYER_KEYS, ...MARKS, ...BYTE_KEYS].flatMap((key) => (key === 'W_q' ? [] : (at(key) ?? []))),
    ],
    bias,
    storage: {
      ...{ nbits, groupSize, axis, packing: format.packing, computeDtype },
      ...(scale.sets === undefined && zero.sets === undefined ? { metaDtype } : { metaBits: 8 }),
      bitsPerWeight: bits / count,
    },
    ...{ format, geometry, packed, scale, zero },
  };
}

/** The width that the number stands for. Python stores 1.58 as the integer 1 in some versions: the packing tells. */
function bitsIn(value: number, format: PackFormat): NBits | undefined {
  const nbits = format.packing === '2bit_u8' && value === 1 ? 1.58 : value === Math.fround(1.58) ? 1.58 : value;
  return NBITS.find((known) => known === nbits && known <= format.codeBits);
}

function checkPacked(
  packed: TensorEntry,
  format: PackFormat,
  { rows, cols }: Geometry,
  viewed: boolean,
  refuse: (message: string) => never,
): void {
  const { type, shape, begin, end } = packed;
  const expected = [packedRows(format, rows), cols] as const;
  const bytes = expected[0] * expected[1] * format.wordBytes;
  const sound = viewed
    ? type.float !== undefined && shape[0] === expected[0] && end - begin === bytes
    : type.name === (format.wordBytes === 1 ? 'U8' : 'I32') && sameShape(shape, expected);
  if (sound && (rows % format.fields === 0 || format.padded)) return;
  const words = format.wordBytes === 1 ? 'U8' : 'I32';
  const needed = `${words} [${expected.join(', ')}]${viewed ? ', viewed as floating-point,' : ''}`;
  refuse(`has ${describe(packed)} as W_q, where ${needed} is needed for ${rows} x ${cols} codes as ${format.packing}`);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

function wrong(source: TensorSource, entry: TensorEntry, module: string, message: string) {
  return formatError(pathOfFile(source, entry), `quantized layer ${quote(module)} ${message}.`);
}
