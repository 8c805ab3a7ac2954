import type { DTypeId } from '../../binding.js';

/** Element types of weights. float16 and bfloat16 travel as raw bits in a `Uint16Array`. */
export type DType = 'float32' | 'float16' | 'bfloat16';

interface DTypeRow {
  /** What a backend is told. */
  readonly id: DTypeId;
  readonly bytes: 2 | 4;
  /** The name in Python, as checkpoints spell it. */
  readonly torch: string;
}

/** The element types, once, in the order of their ids. Adding one: a row here and one in native/core/types.h. */
export const DTYPES: { readonly [K in DType]: DTypeRow } = {
  float32: { id: 0, bytes: 4, torch: 'torch.float32' },
  float16: { id: 1, bytes: 2, torch: 'torch.float16' },
  bfloat16: { id: 2, bytes: 2, torch: 'torch.bfloat16' },
};

export const DTYPE_NAMES = Object.keys(DTYPES) as readonly DType[];

/** An array that holds `length` elements of `dtype`. */
export function allocate(dtype: DType, length: number): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> {
  return dtype === 'float32' ? new Float32Array(length) : new Uint16Array(length);
}
