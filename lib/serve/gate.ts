interface Waiting {
  readonly admit: () => void;
}

/** Lets so many in at once, so many wait their turn, and turns the others away. */
export class Gate {
  readonly #waiting: Waiting[] = [];
  readonly #queue: number;
  readonly #most: number;
  #free: number;

  constructor(active: number, queue: number) {
    this.#free = this.#most = active;
    this.#queue = queue;
  }

  /** How many are inside. */
  get active(): number {
    return this.#most - this.#free;
  }

  /** How many wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** How many more would be let in, or wait. */
  get room(): number {
    return this.#free + this.#queue - this.#waiting.length;
  }

  /** Resolves to a function that leaves; to undefined when the queue is full. Rejects when the signal aborts first. */
  async enter(signal: AbortSignal): Promise<(() => void) | undefined> {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else {
      if (this.#waiting.length >= this.#queue) return undefined;
      await this.#wait(signal);
    }
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      const next = this.#waiting.shift();
      if (next) next.admit();
      else this.#free++;
    };
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        reject(signal.reason as Error);
      };
      const entry: Waiting = {
        admit: () => {
          signal.removeEventListener('abort', leave);
          resolve();
        },
      };
      signal.addEventListener('abort', leave, { once: true });
      this.#waiting.push(entry);
    });
  }
}
