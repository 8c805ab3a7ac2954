/** Weights of parts that are closed together: of each as long as somebody has the part, of none once they are let go. */
export class Holding<Weights extends object> {
  #weights = new WeakMap<object, Weights>();

  add(part: object, weights: Weights): void {
    this.#weights.set(part, weights);
  }

  /** Those of a part; undefined once they are let go. */
  of(part: object): Weights | undefined {
    return this.#weights.get(part);
  }

  letGo(): void {
    this.#weights = new WeakMap();
  }
}
