/** Names that are free: what is asked for, or that with a number. However many ask for one name, each takes a few steps. */
export class FreeNames {
  readonly #isTaken: (name: string) => boolean;
  readonly #between: string;
  readonly #next = new Map<string, number>();

  /** @param between Stands between a name and its number. */
  constructor(isTaken: (name: string) => boolean, between = '_') {
    this.#isTaken = isTaken;
    this.#between = between;
  }

  /** A name that is not taken. Whoever asks has to take it. */
  of(name: string): string {
    if (!this.#isTaken(name)) return name;
    let number = this.#next.get(name) ?? 1;
    while (this.#isTaken(`${name}${this.#between}${number}`)) number++;
    this.#next.set(name, number + 1);
    return `${name}${this.#between}${number}`;
  }
}
