import { untilAborted } from '../../compute/signal.js';

/** Calls that run one after the other, in the order in which they came. */
export class Turns {
  /** When all calls so far are over. */
  #over: Promise<void> = Promise.resolve();

  /** Runs `call` when it is its turn. @throws the signal's reason when it is aborted before: then `call` never runs. */
  take<T>(call: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const before = this.#over;
    const taken = untilAborted(before, signal).then(() => {
      signal?.throwIfAborted();
      return call();
    });
    // A call that is aborted while it waits is over before those that it waited for.
    this.#over = Promise.allSettled([before, taken]).then(() => {});
    return taken;
  }
}
