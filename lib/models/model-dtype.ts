import type { TensorSource } from '../containers/container.js';
import { DTYPE_NAMES, type DType } from '../matrix/dtype.js';

/**
 * The type that a model is computed in, as its description says (`dtype`, `torch_dtype`, also of its text part); where it says
 * nothing, the one that most bytes of its numbers have.
 */
export function modelDtypeOf({ envelope, entries }: Pick<TensorSource, 'envelope' | 'entries'>): DType {
  const { config } = envelope;
  const parts = [config, config?.text_config].filter((part): part is Record<string, unknown> => {
    return typeof part === 'object' && part !== null;
  });
  for (const part of parts) {
    for (const said of [part.dtype, part.torch_dtype]) {
      const dtype = DTYPE_NAMES.find((name) => name === said);
      if (dtype !== undefined) return dtype;
    }
  }
  const bytes = new Map<DType, number>();
  for (const { type, begin, end } of entries.values()) {
    if (type.float !== undefined) bytes.set(type.float, (bytes.get(type.float) ?? 0) + end - begin);
  }
  return [...bytes].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 'float32';
}
