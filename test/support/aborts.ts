import { expect, vi } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';

/** Runs `call`, aborts it when the backend begins its `at`-th operation, and counts what it begins afterwards; undefined: it was through. */
export async function begunAfterAbort(
  call: (signal: AbortSignal) => Promise<unknown>,
  at: number,
): Promise<number | undefined> {
  const controller = new AbortController();
  const backend = activeBackend();
  const start = backend.start.bind(backend);
  let [begun, after] = [0, 0];
  vi.spyOn(backend, 'start').mockImplementation((operation, args) => {
    if (controller.signal.aborted) after++;
    if (++begun === at) setImmediate(() => controller.abort());
    return start(operation, args);
  });
  const error = await call(controller.signal).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  vi.restoreAllMocks();
  if (error === undefined) return undefined;
  expect(error).toBe(controller.signal.reason);
  return after;
}
