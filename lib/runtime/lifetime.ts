import { setImmediate as nextTurn } from 'node:timers/promises';
import { HqqError } from '../messages/errors.js';

/** Whether something is open, and what is under way on it. */
export class Lifetime {
  readonly #what: string;
  readonly #calls = new Set<Promise<unknown>>();
  #closed = false;
  #generations = 0;
  #whenOver: (() => Promise<void>) | undefined;
  #over: Promise<void> | undefined;

  /** @param what As messages call it: "the model". */
  constructor(what: string) {
    this.#what = what;
  }

  /** Whether `close` was called. */
  get closed(): boolean {
    return this.#closed;
  }

  /** @throws {HqqError} `ERR_CLOSED` */
  checkOpen(): void {
    if (this.#closed) throw new HqqError('ERR_CLOSED', `Expected ${this.#what} to be open, got a call after close.`);
  }

  /** Runs a call, for which `close` waits. @throws {HqqError} `ERR_CLOSED` */
  async run<T>(call: () => Promise<T>): Promise<T> {
    this.checkOpen();
    return this.#track(call());
  }

  /**
   * A generator that does what that of `make` does. `close` waits while somebody waits for its next value; one that nobody asks
   * is not waited for, and goes on when it is asked. One that has not begun by then never does.
   */
  async *generate<T>(make: () => AsyncGenerator<T, void, undefined>): AsyncGenerator<T, void, undefined> {
    this.checkOpen();
    const values = make();
    this.#generations++;
    try {
      for (;;) {
        const { done, value } = await this.#track(values.next());
        if (done) return;
        yield value;
      }
    } finally {
      await values.return();
      this.#generations--;
      this.#finish().catch(() => {}); // `close` tells of it; who reads does not wait for what comes after the last value
    }
  }

  /**
   * Lets nothing begin any more, and resolves when nothing is under way. `whenOver` is called when no generator can go on either.
   */
  async close(whenOver: () => Promise<void>): Promise<void> {
    if (!this.#closed) this.#whenOver = whenOver;
    this.#closed = true;
    // Who reads a generator asks for the next value within the turn in which it gets one.
    for (; this.#calls.size > 0; await nextTurn()) await Promise.allSettled(this.#calls);
    await this.#finish();
  }

  /** Begins the end where nothing is under way, and resolves when it is over. */
  async #finish(): Promise<void> {
    if (this.#closed && this.#generations === 0 && this.#calls.size === 0) this.#over ??= this.#whenOver?.();
    await this.#over;
  }

  async #track<T>(call: Promise<T>): Promise<T> {
    this.#calls.add(call);
    try {
      return await call;
    } finally {
      this.#calls.delete(call);
    }
  }
}
