import type { QuantizeArgs } from '../../../binding.js';
import { LANES } from '../../matrix/constants.js';
import { powPositive, roundEven, roundTo, sumLanes } from './lanes.js';

/** The twin of native/kernels/solve.h: one group at a time, the same operations in the same order. */

const f = Math.fround;
const MAGIC = 12582912;
const TINY = 2 ** -126;
const SLACK = f(1e-6);

/** Sums over a unit of groups, as the native kernels keep them. */
export interface GroupStats {
  absError: number;
  squaredError: number;
  squaredWeight: number;
  iterations: number;
}

type Options = Pick<QuantizeArgs, 'maxCode' | 'schedule' | 'lpNorm' | 'roundZero' | 'referenceGuards' | 'metaDtype'>;

/** Solves groups of one size, keeping the scratch that it needs. */
export class GroupSolver {
  /** The group to solve: written by the caller. */
  readonly weights: Float32Array;
  /** Codes of the last group solved. */
  readonly codes: Uint8Array;
  scale = 0;
  zero = 0;

  readonly #size: number;
  readonly #options: Options;
  readonly #scaled: Float32Array;
  readonly #lanes = [new Float32Array(LANES), new Float32Array(LANES), new Float32Array(LANES)] as const;
  readonly #minThreshold: number;
  readonly #constantBeta: boolean;
  readonly #lpNorm: number;

  constructor(size: number, codesLength: number, options: Options) {
    this.#size = size;
    this.#options = options;
    this.weights = new Float32Array(size);
    this.codes = new Uint8Array(codesLength);
    this.#scaled = new Float32Array(size);
    const { schedule } = options;
    let least = Infinity;
    let constant = true;
    for (let i = 0; i < schedule.length; i += 2) {
      least = Math.min(least, schedule[i + 1]!);
      constant &&= schedule[i] === schedule[0];
    }
    this.#minThreshold = least;
    this.#constantBeta = constant;
    this.#lpNorm = f(options.lpNorm);
  }

  solve(stats: GroupStats): void {
    const { weights } = this;
    const { maxCode, schedule } = this.#options;
    const size = this.#size;
    const scaled = this.#scaled;
    let least = weights[0]!;
    let most = least;
    for (let i = 1; i < size; i++) {
      const w = weights[i]!;
      if (w < least) least = w;
      if (w > most) most = w;
    }
    const magnitude = -least > most ? -least : most;
    const invScale = this.#invScale(least, most, magnitude);
    const scale = f(1 / invScale);
    let zero = f(0 - f(least * invScale));
    if (this.#options.roundZero) zero = roundEven(zero) + 0;

    const sums = this.#lanes[0].fill(0);
    for (let i = 0; i < size; i++) {
      const s = f(weights[i]! * invScale);
      scaled[i] = s;
      sums[i & (LANES - 1)] = sums[i & (LANES - 1)]! + s;
    }
    const sumOfScaled = sumLanes(sums);

    const low = f(least * invScale);
    const high = f(most * invScale);
    const overshoot = () => {
      const below = -f(low + zero);
      const above = f(f(high + zero) - maxCode);
      return below > above ? below : above;
    };

    const perWeight = 1 / size;
    let iteration = 0;
    for (let moving = true; moving && 2 * iteration < schedule.length; iteration++) {
      const threshold = schedule[2 * iteration + 1]!;
      const beyond = overshoot();
      const residual = f(f((beyond < 0.5 ? 0.5 : beyond) * scale) + f(magnitude * SLACK));
      const codes = sumOfCodes(scaled, size, zero, maxCode);
      const targets =
        residual <= threshold ? sumOfScaled : this.#sumOfTargets(zero, invScale, schedule[2 * iteration]!);
      const next = f((codes - targets) * perWeight);
      moving = next !== zero || !(this.#constantBeta || residual <= this.#minThreshold);
      zero = next;
    }
    if (iteration > stats.iterations) stats.iterations = iteration;
    this.scale = scale;
    this.zero = zero;
    this.#finish(invScale, stats);
  }

  #invScale(least: number, most: number, magnitude: number): number {
    const { maxCode } = this.#options;
    if (this.#options.referenceGuards) {
      const range = f(most - least);
      const s = range <= f(1e-4) ? 1 : f(f(1 / range) * maxCode);
      return s < 2e4 ? s : 2e4;
    }
    if (!(most > least)) return 1;
    const halfRange = f(f(most * 0.5) - f(least * 0.5));
    const s = f(f(0.5 / halfRange) * maxCode);
    const limit = f(1048576 / magnitude);
    const clamped = s < limit ? s : limit;
    const bounded = clamped < 2 ** 120 ? clamped : 2 ** 120;
    return bounded > TINY ? bounded : TINY;
  }

  /** Sum of `(w - shrink(w - (code - zero) / s)) * s`, where a residual may be more than shrinkage takes away. */
  #sumOfTargets(zero: number, invScale: number, invBeta: number): number {
    const { maxCode } = this.#options;
    const { weights } = this;
    const scaled = this.#scaled;
    const size = this.#size;
    const soft = this.#lpNorm === 1;
    const exponent = f(this.#lpNorm - 1);
    const sums = this.#lanes[0].fill(0);
    for (let i = 0; i < size; i++) {
      const w = weights[i]!;
      const code = encode(f(scaled[i]! + zero), maxCode);
      const residual = f(w - f(f(code - zero) / invScale));
      const magnitude = Math.abs(residual);
      const cut = soft ? invBeta : f(invBeta * powPositive(magnitude > TINY ? magnitude : TINY, exponent));
      const left = f(magnitude - cut);
      const shrunk = left > 0 ? left : 0;
      const target = f(w - (residual < 0 ? -shrunk : shrunk));
      sums[i & (LANES - 1)] = sums[i & (LANES - 1)]! + f(target * invScale);
    }
    return sumLanes(sums);
  }

  #finish(invScale: number, stats: GroupStats): void {
    const { maxCode, metaDtype } = this.#options;
    const { zero, scale } = this;
    const storedZero = roundTo(metaDtype, zero);
    const storedLevels = f(roundTo(metaDtype, scale) * invScale);
    const [errors, squares, weights] = this.#lanes;
    errors.fill(0);
    squares.fill(0);
    weights.fill(0);
    const { codes } = this;
    const scaled = this.#scaled;
    const size = this.#size;
    for (let i = 0; i < size; i++) {
      const s = scaled[i]!;
      const code = encode(f(s + zero), maxCode);
      codes[i] = code;
      const levels = f(s - f(f(code - storedZero) * storedLevels));
      const lane = i & (LANES - 1);
      errors[lane] = errors[lane]! + Math.abs(levels);
      squares[lane] = squares[lane]! + f(levels * levels);
      weights[lane] = weights[lane]! + f(s * s);
    }
    stats.absError += sumLanes(errors) * scale;
    stats.squaredError += sumLanes(squares) * scale * scale;
    stats.squaredWeight += sumLanes(weights) * scale * scale;
  }
}

/** round(clamp(place, 0, maxCode)): both ends are whole, so it does not matter which comes first. */
function encode(place: number, maxCode: number): number {
  const inside = place < 0 ? 0 : place > maxCode ? maxCode : place;
  return f(f(inside + MAGIC) - MAGIC);
}

/** Whole numbers: exact in any order. */
function sumOfCodes(scaled: Float32Array, size: number, zero: number, maxCode: number): number {
  let sum = 0;
  for (let i = 0; i < size; i++) sum += encode(f(scaled[i]! + zero), maxCode);
  return sum;
}
