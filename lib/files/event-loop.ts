import { setImmediate as nextTurn } from 'node:timers/promises';

/** Milliseconds after which the event loop gets its turn. */
const TURN_MS = 1;

let lastTurn = 0;

/**
 * Lets the event loop turn if it has waited for longer than `TURN_MS`: computing in JavaScript between jobs calls it. One clock
 * for all callers, who would each be short and together be long.
 */
export async function yieldIfDue(): Promise<void> {
  const now = performance.now();
  if (now - lastTurn < TURN_MS) return;
  await nextTurn();
  lastTurn = performance.now();
}
