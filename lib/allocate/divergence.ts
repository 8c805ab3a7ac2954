/** Rows of logits that others are compared with: their softmax is computed once. */
export class Truth {
  readonly #width: number;
  readonly #shares: Float64Array;
  /** Of each row: `sum of P ln P`. */
  readonly #negentropy: Float64Array;

  /** @param logits `[rows, width]`, which may change afterwards. */
  constructor(logits: Float32Array, width: number) {
    this.#width = width;
    const rows = logits.length / width;
    this.#shares = new Float64Array(logits.length);
    this.#negentropy = new Float64Array(rows);
    for (let row = 0; row < rows; row++) {
      const own = logits.subarray(row * width, (row + 1) * width);
      const shares = this.#shares.subarray(row * width, (row + 1) * width);
      const highest = highestOf(own);
      let mass = 0;
      for (let i = 0; i < width; i++) mass += shares[i] = Math.exp(own[i]! - highest);
      let dot = 0;
      for (let i = 0; i < width; i++) {
        shares[i] = shares[i]! / mass;
        dot += shares[i]! * own[i]!;
      }
      this.#negentropy[row] = dot - highest - Math.log(mass);
    }
  }

  /** Divergence of Kullback and Leibler of other logits, `[width]`, from one of the rows: `sum of P ln (P / Q)`, in nats. */
  divergence(row: number, logits: Float32Array): number {
    const shares = this.#shares.subarray(row * this.#width, (row + 1) * this.#width);
    const highest = highestOf(logits);
    let [mass, dot] = [0, 0];
    for (let i = 0; i < logits.length; i++) {
      mass += Math.exp(logits[i]! - highest);
      dot += shares[i]! * logits[i]!;
    }
    return this.#negentropy[row]! - dot + highest + Math.log(mass);
  }
}

function highestOf(logits: Float32Array): number {
  let highest = logits[0]!;
  for (const logit of logits) if (logit > highest) highest = logit;
  return highest;
}
