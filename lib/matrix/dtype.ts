import type { DTypeId } from '../../binding.js';

/** Element types of weights. float16 and bfloat16 travel as raw bits in a `Uint16Array`. */
export type DType = 'float32' | 'float16' | 'bfloat16';

interface DTypeRow {
  /** What a backend is told. */
  readonly id: DTypeId;
  readonly bytes: 2 | 4;
  /** The name in a safetensors header. */
  readonly safetensors: 'F32' | 'F16' | 'BF16';
  /** The name in Python, as checkpoints spell it. */
  readonly torch: string;
}

/** The element types, once, in the order of their ids. Adding one: a row here and one in native/core/types.h. */
export const DTYPES: { readonly [K in DType]: DTypeRow } = {
  float32: { id: 0, bytes: 4, safetensors: 'F32', torch: 'torch.float32' },
  float16: { id: 1, bytes: 2, safetensors: 'F16', torch: 'torch.float16' },
  bfloat16: { id: 2, bytes: 2, safetensors: 'BF16', torch: 'torch.bfloat16' },
};

export const DTYPE_NAMES = Object.keys(DTYPES) as readonly DType[];

/** The element type that a safetensors header calls `name`, if weights can have it. */
export function dtypeFromSafetensors(name: string): DType | undefined {
  return DTYPE_NAMES.find((dtype) => DTYPES[dtype].safetensors === name);
}

/** An array that holds `length` elements of `dtype`. */
export function allocate(dtype: DType, length: number): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> {
  return dtype === 'float32' ? new Float32Array(length) : new Uint16Array(length);
}
