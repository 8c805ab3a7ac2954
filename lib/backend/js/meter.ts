/** Multiply-adds, or elements of slower kinds, between turns. */
const UNIT = 1 << 17;

/** Yields once for every `UNIT` of work. */
export class Meter {
  #work = 0;

  /** Whether so much was done that a turn is due. */
  due(work: number): boolean {
    this.#work += work;
    if (this.#work < UNIT) return false;
    this.#work = 0;
    return true;
  }
}
