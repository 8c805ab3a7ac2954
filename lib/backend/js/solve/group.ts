import type { QuantizeArgs } from '../../../../binding.js';
import { LANES } from '../../../matrix/constants.js';
import { sumLanes } from '../lanes.js';

// The twin of native/kernels/solve/group.h: the same operations in the same order.

const f = Math.fround;
const MAGIC = 12582912;

/** What all groups are solved with. */
export type SolveOptions = Pick<
  QuantizeArgs,
  'maxCode' | 'solver' | 'parameters' | 'zeroKind' | 'referenceGuards' | 'metaDtype' | 'scaleDtype'
>;

/** Where a group stands. Codes are `clamp(round(w * invScale + zero), 0, maxCode)`. */
export interface State {
  invScale: number;
  scale: number;
  zero: number;
}

/** A group of weights, and where it stands. One object serves all groups of a size. */
export class Group implements State {
  /** Written by the caller. */
  readonly weights: Float32Array;
  /** Written by the caller, and scaled by `weigh`. */
  readonly importance: Float32Array;
  /** `weights * invScale` */
  readonly scaled: Float32Array;
  readonly codes: Uint8Array;
  readonly lanes = [new Float32Array(LANES), new Float32Array(LANES), new Float32Array(LANES)] as const;
  least = 0;
  most = 0;
  magnitude = 0;
  sumOfScaled = 0;
  /** 0: all weights count alike. */
  sumOfImportance = 0;
  invScale = 1;
  scale = 1;
  zero = 0;
  /** Of solvers that fit scale and zero together: see `lanes.ts` in this folder. */
  readonly x: Float32Array;
  unit = 1;
  #memory: Float32Array | undefined;

  constructor(
    readonly size: number,
    codesLength: number,
  ) {
    this.weights = new Float32Array(size);
    this.importance = new Float32Array(size);
    this.scaled = new Float32Array(size);
    this.x = new Float32Array(size);
    this.codes = new Uint8Array(codesLength);
  }

  /** What a solver keeps of each weight between steps. */
  get memory(): Float32Array {
    this.#memory ??= new Float32Array(this.size);
    return this.#memory;
  }

  /** What is known of the weights before the solver starts. */
  measure(): void {
    const { weights, size } = this;
    let least = weights[0]!;
    let most = least;
    for (let i = 1; i < size; i++) {
      const w = weights[i]!;
      if (w < least) least = w;
      if (w > most) most = w;
    }
    this.least = least;
    this.most = most;
    this.magnitude = -least > most ? -least : most;
    this.sumOfImportance = 0;
  }

  /** Makes the largest importance 1. Where all are equal, zeros among them, there is none. */
  weigh(): void {
    const { importance, size } = this;
    let least = importance[0]!;
    let most = least;
    for (let i = 1; i < size; i++) {
      const value = importance[i]!;
      if (value < least) least = value;
      if (value > most) most = value;
    }
    if (least === most) return;
    const sums = this.lanes[0].fill(0);
    for (let i = 0; i < size; i++) {
      const share = f(importance[i]! / most);
      importance[i] = share;
      sums[i & (LANES - 1)] = sums[i & (LANES - 1)]! + share;
    }
    this.sumOfImportance = sumLanes(sums);
  }

  /** To be called after `invScale` has changed. */
  scaleWeights(): void {
    const { weights, scaled, invScale, size } = this;
    const sums = this.lanes[0].fill(0);
    for (let i = 0; i < size; i++) {
      const s = f(weights[i]! * invScale);
      scaled[i] = s;
      sums[i & (LANES - 1)] = sums[i & (LANES - 1)]! + s;
    }
    this.sumOfScaled = sumLanes(sums);
  }

  /** How far the group reaches beyond the codes, in levels: the more of the two ends. */
  overshoot(maxCode: number): number {
    const turned = this.invScale < 0;
    const below = -f(f((turned ? this.most : this.least) * this.invScale) + this.zero);
    const above = f(f(f((turned ? this.least : this.most) * this.invScale) + this.zero) - maxCode);
    return below > above ? below : above;
  }
}

/** round(clamp(place, 0, maxCode)): both ends are whole, so it does not matter which comes first. */
export function encode(place: number, maxCode: number): number {
  const inside = place < 0 ? 0 : place > maxCode ? maxCode : place;
  return f(f(inside + MAGIC) - MAGIC);
}
