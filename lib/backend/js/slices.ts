import type { Task } from '../../../binding.js';

/** Work cut into pieces of about a millisecond: after each, the event loop may have its turn. */
export type Units = Generator<void, void, void>;

/** Milliseconds of work between turns of the event loop: short enough that nobody waits, long enough to get on. */
const SLICE_MS = 2;

interface Entry {
  readonly units: Units;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

/** Runs work on the event loop's own thread in slices, one task after the other. */
export class Slices {
  readonly #queue: Entry[] = [];
  #scheduled = false;

  add(units: Units): Task {
    let entry: Entry;
    const promise = new Promise<void>((resolve, reject) => {
      entry = { units, resolve, reject };
      this.#queue.push(entry);
    });
    this.#schedule();
    return {
      promise,
      cancel: () => {
        const at = this.#queue.indexOf(entry);
        if (at < 0) return;
        this.#queue.splice(at, 1);
        entry.reject(Object.assign(new Error('The operation was aborted'), { code: 'ABORTED' }));
      },
    };
  }

  #schedule(): void {
    if (this.#scheduled || this.#queue.length === 0) return;
    this.#scheduled = true;
    nextTurn(() => {
      this.#scheduled = false;
      this.#slice();
      this.#schedule();
    });
  }

  #slice(): void {
    const end = performance.now() + SLICE_MS;
    for (let entry = this.#queue[0]; entry !== undefined && performance.now() < end; entry = this.#queue[0]) {
      try {
        if (!entry.units.next().done) continue;
        entry.resolve();
      } catch (error) {
        entry.reject(error);
      }
      this.#queue.shift();
    }
  }
}

/** After whatever else the event loop has to do. Browsers have no `setImmediate`; their timers wait 4 ms, messages do not. */
function nextTurn(callback: () => void): void {
  if (typeof setImmediate === 'function') {
    setImmediate(callback);
    return;
  }
  const channel = new MessageChannel();
  (channel.port1 as unknown as { onmessage: () => void }).onmessage = () => {
    channel.port1.close();
    callback();
  };
  channel.port2.postMessage(null);
}
