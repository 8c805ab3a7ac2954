import type { LanguageModelConfig } from '../config/model-config.js';
import { addNamed, type Linear } from './linear.js';
import type { Lora } from './lora.js';
import type { RmsNorm } from './norm.js';
import type { Plan } from './plan.js';
import { addScale } from './scale.js';
import type { LinearInput } from './tap.js';

/** What checkpoints call the last linear layer. */
export const HEAD_MODULE = 'lm_head';

/** What follows the blocks: a norm, and the linear layer that gives logits. */
export class Head {
  readonly #norm: RmsNorm;
  readonly #linear: Linear;
  readonly #factor: number;
  readonly #softCap: number;

  constructor(norm: RmsNorm, linear: Linear, { multipliers, softCaps }: LanguageModelConfig) {
    this.#norm = norm;
    this.#linear = linear;
    this.#factor = multipliers.logits;
    this.#softCap = softCaps.logits;
  }

  /** Bytes that the linear layer takes in memory. */
  get bytes(): number {
    return this.#linear.bytes;
  }

  /** Adds the head to a plan: it reads `hidden`, writes `normed` (both `[rows, hiddenSize]`) and `logits` (`[rows, vocabSize]`). */
  addTo(plan: Plan, hidden: Float32Array, rows: number, normed: Float32Array, logits: Float32Array, lora?: Lora): void {
    this.addNorm(plan, hidden, rows, normed);
    this.addLinear(plan, normed, rows, logits, lora);
  }

  /** Adds what comes after the norm. */
  addLinear(plan: Plan, normed: Float32Array, rows: number, logits: Float32Array, lora?: Lora): void {
    addNamed(plan, { module: HEAD_MODULE, linear: this.#linear }, normed, rows, logits, lora);
    addScale(plan, logits, this.#factor, this.#softCap);
  }

  /** Adds what comes before the linear layer, and no more. */
  addNorm(plan: Plan, hidden: Float32Array, rows: number, normed: Float32Array): void {
    this.#norm.addTo(plan, hidden, rows, normed);
  }

  /** What went into the linear layer. */
  input(normed: Float32Array, rows: number): LinearInput {
    return { module: HEAD_MODULE, rows, x: normed };
  }
}
