/** Milliseconds after which the event loop gets its turn. */
const TURN_MS = 1;

let lastTurn = 0;

/** Whether somebody goes on in this turn already. */
let begun = false;

/** Who waits for a turn, first come first served; as many calls of `goOn` are on their way. */
const waiting: (() => void)[] = [];

/**
 * Lets the event loop turn if it has waited for longer than `TURN_MS`: computing in JavaScript between jobs calls it. One clock
 * for all callers, who would each be short and together be long; those who find a turn used up wait for the next one.
 */
export async function yieldIfDue(): Promise<void> {
  if (!isDue()) return;
  await new Promise<void>((resolve) => {
    waiting.push(resolve);
    setImmediate(goOn);
  });
}

/** Lets the first who waits go on, in this turn or in the next. */
function goOn(): void {
  if (!begun) {
    begun = true;
    lastTurn = performance.now();
    setImmediate(() => {
      begun = false; // it runs before all others of the next turn
    });
  }
  if (isDue()) setImmediate(goOn);
  else waiting.shift()!();
}

function isDue(): boolean {
  return performance.now() - lastTurn >= TURN_MS;
}

/** Work that is cut into pieces, well under a millisecond each. */
export type Steps<T> = Generator<void, T, void>;

/** Does the steps one after the other, and lets the event loop turn in between. @throws the signal's reason, at the next step */
export async function inTurns<T>(steps: Steps<T>, signal?: AbortSignal): Promise<T> {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
    if (isDue()) await yieldIfDue();
    signal?.throwIfAborted();
  }
}

/** Does the steps in one go. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** Items that are sorted, or merged, in one step. */
const SORTED_AT_ONCE = 512;

/** A sorted copy of `items`; what compares as equal keeps its order. Runs that are sorted are merged, two at a time. */
export function* sortSteps<T>(items: readonly T[], compare: (a: T, b: T) => number): Steps<T[]> {
  let sorted = [...items];
  for (let begin = 0; begin < sorted.length; begin += SORTED_AT_ONCE) {
    const run = sorted.slice(begin, begin + SORTED_AT_ONCE).sort(compare);
    for (const [i, item] of run.entries()) sorted[begin + i] = item;
    yield;
  }
  for (let run = SORTED_AT_ONCE; run < sorted.length; run *= 2) {
    const merged: T[] = [];
    for (let begin = 0; begin < sorted.length; begin += 2 * run) {
      const [middle, end] = [Math.min(begin + run, sorted.length), Math.min(begin + 2 * run, sorted.length)];
      let [left, right] = [begin, middle];
      while (left < middle || right < end) {
        const first = right === end || (left < middle && compare(sorted[left]!, sorted[right]!) <= 0);
        merged.push(sorted[first ? left++ : right++]!);
        if (merged.length % SORTED_AT_ONCE === 0) yield;
      }
    }
    sorted = merged;
  }
  return sorted;
}

/** Waits until none of them is under way any more: what they read and write is free then. @throws the first failure, in their order */
export async function whenAllEnd(calls: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(calls)) if (result.status === 'rejected') throw result.reason;
}
