import type { Steps } from '../../files/event-loop.js';
import type { Floats } from '../tape/spans.js';

/** Numbers of a row that are done between turns. */
const AT_ONCE = 1 << 13;

/**
 * The Kullback-Leibler divergence of the next token's probabilities from those that are wanted, in nats, of all rows together; and its
 * gradient by the logits, times a factor.
 *
 * @param logits `[rows, cols]`, as they are @param wanted `[rows, cols]`, as they should be @param gradient `[rows, cols]`, written
 */
export function* divergence(
  { logits, wanted, gradient }: { readonly logits: Floats; readonly wanted: Floats; readonly gradient: Floats },
  cols: number,
  factor: number,
): Steps<number> {
  let sum = 0;
  for (let from = 0; from < logits.length; from += cols) {
    const own = yield* logOfSum(logits, from, cols);
    const other = yield* logOfSum(wanted, from, cols);
    for (let i = from; i < from + cols; i++) {
      const [log, logWanted] = [logits[i]! - own, wanted[i]! - other];
      const share = Math.exp(logWanted);
      gradient[i] = factor * (Math.exp(log) - share);
      sum += share * (logWanted - log);
      if ((i - from) % AT_ONCE === 0) yield;
    }
  }
  return sum;
}

/** The logarithm of the sum of exponentials of a row. */
function* logOfSum(x: Floats, from: number, cols: number): Steps<number> {
  let highest = -Infinity;
  for (let i = from; i < from + cols; i++) highest = x[i]! > highest ? x[i]! : highest;
  let sum = 0;
  for (let i = from; i < from + cols; i++) {
    sum += Math.exp(x[i]! - highest);
    if ((i - from) % AT_ONCE === 0) yield;
  }
  return highest + Math.log(sum);
}
