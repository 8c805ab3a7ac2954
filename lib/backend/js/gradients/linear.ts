import type { DenseLinearGradientArgs } from '../../../../binding.js';
import { Meter } from '../meter.js';
import type { Units } from '../slices.js';

/** Gradients of `denseLinear`: sums in float64, in the order of the rows, rounded to float32 once. */
export function* denseLinearGradient(args: DenseLinearGradientArgs): Units {
  const { batch, inFeatures, outFeatures, x, weights, gradient, xGradient, weightGradient } = args;
  if (xGradient.length > 0) {
    const left = { values: gradient, row: outFeatures, term: 1 };
    yield* product({
      rows: batch,
      cols: inFeatures,
      terms: outFeatures,
      left,
      right: weights,
      out: xGradient,
      add: true,
    });
  }
  if (weightGradient.length > 0) {
    const left = { values: gradient, row: 1, term: outFeatures };
    yield* product({
      rows: outFeatures,
      cols: inFeatures,
      terms: batch,
      left,
      right: x,
      out: weightGradient,
      add: false,
    });
  }
}

interface Product {
  readonly rows: number;
  readonly cols: number;
  readonly terms: number;
  /** How far rows, and terms, are apart. */
  readonly left: { readonly values: Float32Array; readonly row: number; readonly term: number };
  /** `[terms, cols]` */
  readonly right: Float32Array;
  /** `[rows, cols]` */
  readonly out: Float32Array;
  /** To what `out` holds. */
  readonly add: boolean;
}

/** `out[r, c] = sum over k of left[r, k] * right[k, c]`. Rows in pairs: each number of `right` that is read serves both. */
function* product({ rows, cols, terms, left, right, out, add }: Product): Units {
  const meter = new Meter();
  const [even, odd] = [new Float64Array(cols), new Float64Array(cols)];
  for (let r = 0; r < rows; r += 2) {
    const both = r + 1 < rows;
    if (add) even.set(out.subarray(r * cols, (r + 1) * cols));
    else even.fill(0);
    if (add && both) odd.set(out.subarray((r + 1) * cols, (r + 2) * cols));
    else odd.fill(0);
    for (let k = 0; k < terms; k++) {
      const at = r * left.row + k * left.term;
      addRow(right, k * cols, left.values[at]!, both ? left.values[at + left.row]! : 0, even, odd);
      if (meter.due(2 * cols)) yield;
    }
    out.set(even, r * cols);
    if (both) out.set(odd, (r + 1) * cols);
  }
}

function addRow(row: Float32Array, at: number, a: number, b: number, even: Float64Array, odd: Float64Array): void {
  for (let c = 0; c < even.length; c++) {
    const value = row[at + c]!;
    even[c] = even[c]! + a * value;
    odd[c] = odd[c]! + b * value;
  }
}
