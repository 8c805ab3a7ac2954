import { bytesOf } from '../../compute/floats.js';
import type { TensorSpec } from '../../containers/container.js';
import { storedFloat, storedType } from '../../containers/stored-types.js';
import { DTYPES } from '../../matrix/dtype.js';
import { scalesOfSet } from '../../matrix/metadata.js';
import type { QuantizedMeta } from '../../matrix/weight.js';
import type { WholeTensor } from '../scheme.js';
import { flag, integer, integers, text } from '../small.js';

// Scales and zeros that are quantized themselves. In Python a layer's dictionary then has `scale_q` and `zero_q` in place of `scale`
// and `zero`, and how each was quantized in a dictionary of its own, `meta_scale` and `meta_zero`, of the keys that the layer's
// codes have. Its `state_dict` refuses to encode that for safetensors: here the inner keys follow the outer one and a dot.

/** What of a layer is quantized itself, in the order of Python's keys. */
export const BYTE_METAS = ['scale', 'zero'] as const;
/** One of them. */
export type ByteMeta = (typeof BYTE_METAS)[number];

/** The key of its codes, and of what `key` of its dictionary is. */
export const codesKey = (meta: ByteMeta) => `${meta}_q`;
export const innerKey = (meta: ByteMeta, key: string) => `meta_${meta}.${key}`;

/** Keys of an inner dictionary that say how to read the others. */
export const INNER_VALUES = [
  'nbits',
  'group_size',
  'axis',
  'shape',
  'packing',
  'unpack_view_dtype',
  'view_as_float',
  'compute_dtype',
] as const;

/** All keys that take the place of `scale` and `zero`. */
export const BYTE_KEYS: readonly string[] = BYTE_METAS.flatMap((meta) => [
  codesKey(meta),
  ...['scale', 'zero', ...INNER_VALUES].map((key) => innerKey(meta, key)),
]);

/** Shape of scale and of zero. */
export function metaShape(axis: 0 | 1, groups: number): readonly [number, number] {
  return axis === 1 ? [groups, 1] : [1, groups];
}

interface Groups {
  readonly axis: 0 | 1;
  readonly groups: number;
}

/** Sets of scales, and of zeros, which are one. */
const setsOf = (meta: ByteMeta, groups: number) => (meta === 'scale' ? groups / scalesOfSet(groups) : 1);

/** Codes, and the scale and the zero of each set. All of what is known of a matrix only when its weights are. */
export function byteMetaSpecs(layer: string, { axis, groups }: Groups): readonly TensorSpec[] {
  const U8 = storedType('U8');
  const F32 = storedFloat('float32'); // float16 would make subnormals of the steps between scales
  return BYTE_METAS.flatMap((meta) => {
    const sets = setsOf(meta, groups);
    const codes = meta === 'scale' ? [groups / sets, sets] : metaShape(axis, groups);
    const shape = meta === 'scale' ? [1, sets] : [];
    return [
      { name: `${layer}.${codesKey(meta)}`, type: U8, shape: codes },
      { name: `${layer}.${innerKey(meta, 'scale')}`, type: F32, shape },
      { name: `${layer}.${innerKey(meta, 'zero')}`, type: F32, shape },
    ];
  });
}

/** The same with their bytes. */
export function byteMetaTensors(
  layer: string,
  of: Groups,
  { scale, zero }: Required<QuantizedMeta>,
): readonly WholeTensor[] {
  const arrays = [scale.codes, scale.scale, scale.zero, zero.codes, zero.scale, zero.zero];
  return byteMetaSpecs(layer, of).map((spec, index) => ({ ...spec, bytes: bytesOf(arrays[index]!) }));
}

/** The other keys of the inner dictionaries. That of zeros has no group size: in Python it is None. */
export function byteMetaConstants(
  layer: string,
  { axis, groups }: Groups,
  computeDtype: 'float16' | 'float32',
): readonly WholeTensor[] {
  return BYTE_METAS.flatMap((meta) => {
    const values = {
      nbits: integer(8),
      ...(meta === 'scale' ? { group_size: integer(scalesOfSet(groups)) } : {}),
      axis: integer(0),
      shape: integers(metaShape(axis, groups)),
      packing: text('8bit_u8'),
      unpack_view_dtype: text('torch.uint8'),
      view_as_float: flag(false),
      compute_dtype: text(DTYPES[computeDtype].torch),
    };
    return Object.entries(values).map(([key, value]) => ({ name: `${layer}.${innerKey(meta, key)}`, ...value }));
  });
}

/** Bytes of codes, scales and zeros of `groups` groups. */
export function byteMetaBytes(groups: number): number {
  return BYTE_METAS.reduce((sum, meta) => sum + groups + 8 * setsOf(meta, groups), 0);
}
