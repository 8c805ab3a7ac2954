import type { DequantizeArgs, FloatBits, LinearTiledArgs } from '../../binding.js';
import type { DType } from '../matrix/dtype.js';
import { packedRows } from '../matrix/format.js';
import { checkQuantized } from '../matrix/validate.js';
import type { QuantizedTensorLike } from '../matrix/weight.js';
import { groupedDequantizeArgs } from './arguments.js';

// Arguments of operations on a whole quantized tensor, which is checked.

interface Result {
  readonly dtype: DType;
  readonly rounding: 'once' | 'each';
  readonly out: FloatBits;
  readonly threads: number;
}

/** Arguments of `dequantize`. */
export function dequantizeArgs(q: QuantizedTensorLike, result: Result): DequantizeArgs {
  const { geometry, format } = checkQuantized(q);
  const { rows, cols } = geometry;
  const { packed, scale, zero, axis } = q;
  return groupedDequantizeArgs({ packed, scale, zero, axis, rows, cols, format, ...result });
}

type Product = Pick<LinearTiledArgs, 'bias' | 'x' | 'out' | 'threads'>;

/** Arguments of `linearTiled`: products with codes that are not in panels. */
export function tiledArgs(q: QuantizedTensorLike, product: Product): LinearTiledArgs {
  const { geometry, format } = checkQuantized(q);
  const { rows, cols } = geometry;
  const { packed, axis, scale, zero } = q;
  const [outFeatures, inFeatures] = q.shape;
  const grid = { packed, format: format.id, rows, cols, step: packedRows(format, rows), axis, scale, zero };
  return { ...grid, inFeatures, outFeatures, ...product };
}
