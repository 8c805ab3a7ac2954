/** Looks for texts that end a generation in what comes bit by bit, and holds back what may be the beginning of one. */
export class StopWatch {
  readonly #stops: readonly string[];
  #held = '';
  #found = false;

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Whether one of the texts has come. */
  get found(): boolean {
    return this.#found;
  }

  /** What of the text so far is sure to stay. */
  push(text: string): string {
    const whole = this.#held + text;
    const at = this.#stops.map((stop) => whole.indexOf(stop)).filter((index) => index >= 0);
    if (at.length > 0) {
      this.#found = true;
      this.#held = '';
      return whole.slice(0, Math.min(...at));
    }
    const held = Math.max(0, ...this.#stops.map((stop) => overlap(whole, stop)));
    this.#held = whole.slice(whole.length - held);
    return whole.slice(0, whole.length - held);
  }

  /** What was held back, when nothing comes any more. */
  rest(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }
}

/** Length of the longest end of `text` that `stop` begins with. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (text.endsWith(stop.slice(0, length))) return length;
  }
  return 0;
}
