import type { Steps } from '../files/event-loop.js';

/** Rows of logits that others are compared with: their softmax is computed once. */
export class Truth {
  readonly #width: number;
  readonly #shares: Float64Array;
  /** Of each row: `sum of P ln P`. */
  readonly #negentropy: Float64Array;

  private constructor(length: number, width: number) {
    this.#width = width;
    this.#shares = new Float64Array(length);
    this.#negentropy = new Float64Array(length / width);
  }

  /** @param logits `[rows, width]`, which may change afterwards. A step is a row. */
  static *of(logits: Float32Array, width: number): Steps<Truth> {
    const truth = new Truth(logits.length, width);
    for (let row = 0; row < truth.#negentropy.length; row++) {
      truth.#read(row, logits.subarray(row * width, (row + 1) * width));
      yield;
    }
    return truth;
  }

  #read(row: number, own: Float32Array): void {
    const shares = this.#rowOf(row);
    const highest = highestOf(own);
    let mass = 0;
    for (let i = 0; i < own.length; i++) mass += shares[i] = Math.exp(own[i]! - highest);
    let dot = 0;
    for (let i = 0; i < own.length; i++) {
      shares[i] = shares[i]! / mass;
      dot += shares[i]! * own[i]!;
    }
    this.#negentropy[row] = dot - highest - Math.log(mass);
  }

  #rowOf(row: number): Float64Array {
    return this.#shares.subarray(row * this.#width, (row + 1) * this.#width);
  }

  /** Divergence of Kullback and Leibler of other logits, `[width]`, from one of the rows: `sum of P ln (P / Q)`, in nats. */
  divergence(row: number, logits: Float32Array): number {
    const shares = this.#rowOf(row);
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
