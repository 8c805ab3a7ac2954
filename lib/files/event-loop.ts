import { setImmediate as nextTurn } from 'node:timers/promises';

/** Milliseconds after which the event loop gets its turn. */
const TURN_MS = 1;

let lastTurn = 0;

/**
 * Lets the event loop turn if it has waited for longer than `TURN_MS`: computing in JavaScript between jobs calls it. One clock
 * for all callers, who would each be short and together be long.
 */
export async function yieldIfDue(): Promise<void> {
  if (!isDue()) return;
  await nextTurn();
  lastTurn = performance.now();
}

function isDue(): boolean {
  return performance.now() - lastTurn >= TURN_MS;
}

/** Work that is cut into pieces, well under a millisecond each. */
export type Steps<T> = Generator<void, T, void>;

/** Does the steps one after the other, and lets the event loop turn in between. */
export async function inTurns<T>(steps: Steps<T>): Promise<T> {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
    if (isDue()) await yieldIfDue();
  }
}

/** Does the steps in one go. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}
