import { utimes } from 'node:fs/promises';

/** Milliseconds between signs of life: several in the shortest silence after which others take a run for dead (leftovers.ts). */
const PULSE = 10 * 60 * 1000;

/** Outputs of this thread that are being written. */
interface OpenOutputs {
  /** How to clear each at once, by the path that it is written to meanwhile. */
  readonly clear: Map<string, () => void>;
  /** The one listener for the end of the process, or of a worker thread, while there are any. */
  listener: (() => void) | undefined;
  /** Touches each now and then, while there are any. */
  pulse: NodeJS.Timeout | undefined;
}

/** Global, since two copies of this package may be loaded. */
const KEY = Symbol.for('hqq.openOutputs');
const outputs = ((globalThis as Record<symbol, unknown>)[KEY] ??= {
  clear: new Map(),
  listener: undefined,
  pulse: undefined,
} satisfies OpenOutputs) as OpenOutputs;

/** Whether something is being written to `path`. */
export function isOpen(path: string): boolean {
  return outputs.clear.has(path);
}

/**
 * Notes that `path` is being written to. Where the process (or worker thread) ends before `release`, by `process.exit` or an error
 * that nobody catches, `clear` is called: what it does must not wait.
 */
export function register(path: string, clear: () => void): void {
  outputs.clear.set(path, clear);
  if (outputs.listener) return;
  outputs.listener = () => {
    for (const clearOne of [...outputs.clear.values()]) clearOne();
  };
  process.on('exit', outputs.listener);
  outputs.pulse = setInterval(touchAll, PULSE).unref();
}

/** Whoever cannot look for this process sees that it is alive. */
function touchAll(): void {
  const now = new Date();
  // What is not there yet, or in its place already, needs no sign.
  for (const path of outputs.clear.keys()) utimes(path, now, now).catch(() => {});
}

/** `path` is in its place, or gone. */
export function release(path: string): void {
  outputs.clear.delete(path);
  if (outputs.clear.size > 0 || !outputs.listener) return;
  process.off('exit', outputs.listener);
  outputs.listener = undefined;
  clearInterval(outputs.pulse);
  outputs.pulse = undefined;
}
