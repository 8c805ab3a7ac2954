import type { Machine } from '../../compute/run.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { allocating } from '../../messages/allocating.js';
import { multiply } from './grams.js';

/**
 * How much of what two input features have in common counts. Of 2,048 tokens of a text more would be fitted to the text than to the
 * language.
 */
const SHRINK = 0.4;

/** How the error of one group of input features is to be met by the groups after it. */
export interface Factor {
  readonly width: number;
  /** Input features of a group. */
  readonly block: number;
  /** In which order groups are chosen, by their places in a row: those that count most come first, and all others meet their errors. */
  readonly order: readonly number[];
  /** `[width, width]`, in that order: what a feature, by column, takes over from the error of one before, by row; else 0. */
  readonly feedback: Float32Array;
  /** `[width]`, as features lie: what errors in each count, when those before it are met. */
  readonly importance: Float32Array;
}

/**
 * The block Cholesky factorization (LDL, from the last group to the first) of H, with what is off its diagonal shrunk:
 *
 *     H = (A + I) D (A + I)T     A [width, width], 0 on and below the blocks of the diagonal; D block-diagonal
 *
 * An error E of weights W costs tr(E H ET), the sum over groups B of what (E_B + E_before A_before,B) costs in D_B: so group B is to be
 * chosen for W_B + E_before A_before,B, where E is what was taken away. H is scaled to ones on its diagonal first, which makes it well
 * conditioned: no eigenvalue is below 1 - SHRINK.
 *
 * @param sums of products of features, symmetric, `[width, width]`
 */
export async function factorize(sums: Float32Array, width: number, block: number, machine: Machine): Promise<Factor> {
  const turn = () => turnOf(machine);
  const order = orderOf(sums, width, block);
  const features = Uint32Array.from({ length: width }, (_, i) => order[Math.floor(i / block)]! * block + (i % block));
  const roots = Float64Array.from(features, (feature) => Math.sqrt(Math.max(sums[feature * width + feature]!, 0)));
  const left = allocating(`${width} x ${width} numbers of a factorization`, () => new Float32Array(width * width));
  for (let i = 0; i < width; i++) {
    await turn();
    for (let j = 0; j < width; j++) {
      const scale = roots[i]! * roots[j]!;
      const product = sums[features[i]! * width + features[j]!]!;
      left[i * width + j] = i === j ? 1 : scale > 0 ? (SHRINK * product) / scale : 0;
    }
  }
  const feedback = allocating(`${width} x ${width} numbers of a factorization`, () => new Float32Array(width * width));
  const importance = new Float32Array(width);
  for (let from = width - block; from >= 0; from -= block) {
    const to = from + block;
    // Columns of the block without what later blocks account for: S = C - (A D) AT, of which A D is in the place of C already.
    if (to < width) {
      const weights = feedback.subarray(from * width, to * width); // 0 up to `to`
      const met = await multiply({ x: left.subarray(0, to * width), weights, inFeatures: width }, machine);
      for (let row = 0; row < to; row++) {
        await turn();
        for (let b = 0; b < block; b++) {
          const at = row * width + from + b;
          left[at] = left[at]! - met[row * block + b]!;
        }
      }
    }
    for (let b = 0; b < block; b++) {
      const i = from + b;
      importance[features[i]!] = left[i * width + i]! * roots[i]! * roots[i]!;
    }
    if (from === 0) break;
    const inverse = await invert(left, width, from, block, turn);
    const above = new Float32Array(from * block);
    for (let row = 0; row < from; row++) above.set(left.subarray(row * width + from, row * width + to), row * block);
    const solved = await multiply({ x: above, weights: inverse, inFeatures: block }, machine);
    for (let row = 0; row < from; row++)
      feedback.set(solved.subarray(row * block, (row + 1) * block), row * width + from);
  }
  for (let row = 0; row < width; row++) {
    await turn();
    for (let i = 0; i < width; i++) {
      const at = row * width + i;
      feedback[at] = roots[i]! > 0 ? (feedback[at]! * roots[row]!) / roots[i]! : 0;
    }
  }
  return { width, block, order, feedback, importance };
}

/** Between rows: lets others have their turn, of whom one may have ended this. */
async function turnOf({ signal }: Machine): Promise<void> {
  await yieldIfDue();
  signal?.throwIfAborted();
}

/** Groups, the one whose features are largest first. */
function orderOf(sums: Float32Array, width: number, block: number): readonly number[] {
  const sizes = Array.from({ length: width / block }, (_, group) => {
    let size = 0;
    for (let i = group * block; i < (group + 1) * block; i++) size += sums[i * width + i]!;
    return size;
  });
  return sizes.map((_, group) => group).sort((a, b) => sizes[b]! - sizes[a]! || a - b);
}

/** The inverse of the block of a matrix that begins at `from` on its diagonal, which is symmetric and positive definite. */
async function invert(
  matrix: Float32Array,
  width: number,
  from: number,
  block: number,
  turn: () => Promise<void>,
): Promise<Float32Array> {
  // L LT = the block; rows of the inverse of L, and from these the inverse.
  const lower = new Float64Array(block * block);
  for (let i = 0; i < block; i++) {
    await turn();
    for (let j = 0; j <= i; j++) {
      let sum: number = matrix[(from + i) * width + from + j]!;
      for (let k = 0; k < j; k++) sum -= lower[i * block + k]! * lower[j * block + k]!;
      lower[i * block + j] = i === j ? Math.sqrt(Math.max(sum, Number.EPSILON)) : sum / lower[j * block + j]!;
    }
  }
  const own = new Float64Array(block * block);
  for (let column = 0; column < block; column++) {
    await turn();
    for (let i = column; i < block; i++) {
      let sum = i === column ? 1 : 0;
      for (let k = column; k < i; k++) sum -= lower[i * block + k]! * own[k * block + column]!;
      own[i * block + column] = sum / lower[i * block + i]!;
    }
  }
  const inverse = new Float32Array(block * block);
  for (let i = 0; i < block; i++) {
    await turn();
    for (let j = 0; j < block; j++) {
      let sum = 0;
      for (let k = Math.max(i, j); k < block; k++) sum += own[k * block + i]! * own[k * block + j]!;
      inverse[i * block + j] = sum;
    }
  }
  return inverse;
}
