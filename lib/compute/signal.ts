import { HqqError, show } from '../messages/errors.js';
import { isSignal } from '../messages/options-object.js';

/**
 * An option that is a signal, or nothing.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function checkSignal(signal: unknown): asserts signal is AbortSignal | undefined {
  if (signal === undefined || isSignal(signal)) return;
  throw new HqqError('ERR_INVALID_OPTION', `Expected signal to be an AbortSignal, got ${show(signal)}.`);
}

interface Watch {
  readonly stops: Set<() => void>;
  readonly listener: () => void;
}

/** The watch of each signal that some call listens to. */
const watches = new WeakMap<AbortSignal, Watch>();

/**
 * Calls `stop` when the signal is aborted, until the function that comes back is called.
 *
 * A signal has one listener, however many calls it may stop: a server gives one to all of its calls, and Node takes the
 * eleventh listener for a leak.
 */
export function onAbort(signal: AbortSignal | undefined, stop: () => void): () => void {
  if (signal === undefined) return () => {};
  const watch = watches.get(signal) ?? begin(signal);
  watch.stops.add(stop);
  return () => {
    if (!watch.stops.delete(stop) || watch.stops.size > 0) return;
    signal.removeEventListener('abort', watch.listener);
    watches.delete(signal);
  };
}

function begin(signal: AbortSignal): Watch {
  const stops = new Set<() => void>();
  const watch = { stops, listener: () => stops.forEach((stop) => stop()) };
  signal.addEventListener('abort', watch.listener, { once: true });
  watches.set(signal, watch);
  return watch;
}

/**
 * The value of a promise, or the signal's reason as soon as it is aborted: for work that cannot be stopped and whose result nobody
 * waits for then.
 */
export async function untilAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  work.catch(() => {}); // it may fail when nobody waits any more
  signal.throwIfAborted();
  let forget = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    forget = onAbort(signal, () => reject(signal.reason));
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    forget();
  }
}
