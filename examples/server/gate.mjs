/** Lets so many in at once, so many wait their turn, and turns the others away. */
export class Gate {
  #free;
  #waiting = [];
  #room;

  constructor(active, queue) {
    this.#free = active;
    this.#room = queue;
  }

  get waiting() {
    return this.#waiting.length;
  }

  /** Resolves to a function that leaves; to undefined when the queue is full. Rejects when the signal aborts first. */
  async enter(signal) {
    signal.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else {
      if (this.#waiting.length >= this.#room) return undefined;
      await new Promise((resolve, reject) => {
        const entry = { admit };
        const leaveQueue = () => {
          this.#waiting.splice(this.#waiting.indexOf(entry), 1);
          reject(signal.reason);
        };
        function admit() {
          signal.removeEventListener('abort', leaveQueue);
          resolve();
        }
        signal.addEventListener('abort', leaveQueue, { once: true });
        this.#waiting.push(entry);
      });
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
}
