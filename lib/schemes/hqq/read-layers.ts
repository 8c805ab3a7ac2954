import type { Checkpoint, CheckpointTensor } from '../../containers/safetensors/checkpoint.js';
import { NBITS, type NBits } from '../../matrix/config.js';
import { DTYPE_NAMES, DTYPES, type DType, dtypeFromSafetensors } from '../../matrix/dtype.js';
import { FORMATS, formatNamed, type PackFormat, packedRows } from '../../matrix/format.js';
import { type Geometry, geometryOf } from '../../matrix/geometry.js';
import { formatError, quote } from '../../messages/text.js';
import { readSmall, type SmallValue } from './scalar-tensors.js';
import { LAYER_KEYS, metaShape } from './state-dict.js';

/** A quantized layer of a checkpoint, checked: its large tensors have the sizes that its small ones say. */
export interface ReadLayer {
  readonly module: string;
  readonly shape: readonly [number, number];
  readonly nbits: NBits;
  readonly groupSize: number;
  readonly axis: 0 | 1;
  readonly format: PackFormat;
  readonly geometry: Geometry;
  readonly packed: CheckpointTensor;
  readonly scale: CheckpointTensor;
  readonly zero: CheckpointTensor;
  readonly bias: CheckpointTensor | undefined;
  /** Type in which scale is stored. */
  readonly metaDtype: DType;
  /** Type in which Python computes unless it is told otherwise. */
  readonly computeDtype: DType;
  /** All its tensors but the bias. */
  readonly keys: readonly CheckpointTensor[];
}

/** Keys without which the codes cannot be read. Python demands the others too, but they say nothing about the numbers. */
const NEEDED = ['W_q', 'scale', 'zero', 'shape', 'nbits', 'group_size', 'axis', 'packing'] as const;

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
] as const;
type ValueKey = (typeof VALUES)[number];

const UNSUPPORTED = {
  quant_scale: 'scales that are quantized themselves',
  quant_zero: 'zeros that are quantized themselves',
  offload_meta: 'scales and zeros that are kept apart (offload_meta)',
} as const;

/**
 * Every quantized layer, by module, in file order. Trusts nothing: what a layer says of itself is held against its tensors,
 * and text in it is compared with the texts there can be, never run (the reference runs it).
 *
 * @throws {HqqError} `ERR_CHECKPOINT_FORMAT`
 */
export async function readLayers(
  checkpoint: Checkpoint,
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, ReadLayer>> {
  const { tensors } = checkpoint;
  const modules = [...tensors.keys()]
    .filter((name) => name.endsWith('.W_q') && name.length > 4)
    .map((name) => name.slice(0, -4));
  const wanted: CheckpointTensor[] = [];
  for (const module of modules) {
    for (const key of NEEDED) {
      if (tensors.has(`${module}.${key}`)) continue;
      const missing = NEEDED.filter((other) => !tensors.has(`${module}.${other}`)).join(', ');
      throw wrong(tensors.get(`${module}.W_q`)!, module, `has W_q but no ${missing}`);
    }
    for (const key of VALUES) {
      const tensor = tensors.get(`${module}.${key}`);
      if (tensor) wanted.push(tensor);
    }
  }
  const values = await readSmall(wanted, signal);
  return new Map(modules.map((module) => [module, readLayer(checkpoint, module, values)]));
}

function readLayer(
  { tensors }: Checkpoint,
  module: string,
  values: ReadonlyMap<CheckpointTensor, SmallValue>,
): ReadLayer {
  const at = (key: string) => tensors.get(`${module}.${key}`);
  const packed = at('W_q')!;
  const refuse = (message: string): never => {
    throw wrong(packed, module, message);
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

  for (const key of ['quant_scale', 'quant_zero', 'offload_meta'] as const) {
    if (number(key) !== 0) refuse(`has ${UNSUPPORTED[key]}, which is not supported. Save it with ${key} off`);
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

  const matrix = [rows!, cols!] as const;
  const geometry = geometryOf(matrix, { groupSize, axis });
  const { scale, zero, bias } = { scale: at('scale')!, zero: at('zero')!, bias: at('bias') };
  for (const [key, tensor] of [
    ['scale', scale],
    ['zero', zero],
  ] as const) {
    const expected = metaShape(axis, geometry.groups);
    if (dtypeFromSafetensors(tensor.entry.dtype) === undefined || !sameShape(tensor.entry.shape, expected)) {
      refuse(`has ${describe(tensor)} as ${key}, where a floating-point [${expected.join(', ')}] is needed`);
    }
  }
  checkPacked(packed, format, geometry, number('view_as_float') !== 0, refuse);
  if (bias && (dtypeFromSafetensors(bias.entry.dtype) === undefined || !sameShape(bias.entry.shape, [matrix[0]]))) {
    refuse(`has ${describe(bias)} as bias, where a floating-point [${matrix[0]}] is needed`);
  }
  if (at('weight')) refuse('has both a weight and codes of one');
  const metaDtype = dtypeFromSafetensors(scale.entry.dtype)!;
  const declared = text('compute_dtype');
  const computeDtype =
    declared === undefined ? metaDtype : DTYPE_NAMES.find((dtype) => DTYPES[dtype].torch === declared);
  if (!computeDtype) {
    const dtypes = DTYPE_NAMES.map((dtype) => DTYPES[dtype].torch).join(', ');
    return refuse(`has compute_dtype ${quote(declared!)}, where one of ${dtypes} is needed`);
  }
  const keys = LAYER_KEYS.flatMap((key) => at(key) ?? []);
  const stored = { packed, scale, zero, bias, keys };
  return { module, shape: matrix, nbits, groupSize, axis, format, geometry, metaDtype, computeDtype, ...stored };
}

/** The width that the number stands for. Python stores 1.58 as the integer 1 in some versions: the packing tells. */
function bitsIn(value: number, format: PackFormat): NBits | undefined {
  const nbits = format.packing === '2bit_u8' && value === 1 ? 1.58 : value === Math.fround(1.58) ? 1.58 : value;
  return NBITS.find((known) => known === nbits && known <= format.codeBits);
}

function checkPacked(
  packed: CheckpointTensor,
  format: PackFormat,
  { rows, cols }: Geometry,
  viewed: boolean,
  refuse: (message: string) => never,
): void {
  const { dtype, shape, begin, end } = packed.entry;
  const expected = [packedRows(format, rows), cols] as const;
  const bytes = expected[0] * expected[1] * format.wordBytes;
  const sound = viewed
    ? dtypeFromSafetensors(dtype) !== undefined && shape[0] === expected[0] && end - begin === bytes
    : dtype === (format.wordBytes === 1 ? 'U8' : 'I32') && sameShape(shape, expected);
  if (sound && (rows % format.fields === 0 || format.padded)) return;
  const words = format.wordBytes === 1 ? 'U8' : 'I32';
  const needed = `${words} [${expected.join(', ')}]${viewed ? ', viewed as floating-point,' : ''}`;
  refuse(`has ${describe(packed)} as W_q, where ${needed} is needed for ${rows} x ${cols} codes as ${format.packing}`);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, i) => size === b[i]);
}

function describe({ entry: { dtype, shape } }: CheckpointTensor): string {
  return `${dtype} [${shape.slice(0, 8).join(', ')}]`;
}

function wrong({ file }: CheckpointTensor, module: string, message: string) {
  return formatError(file.name, `quantized layer ${quote(module)} ${message}.`);
}
