import { HqqError } from '../../messages/errors.js';

/** How the next token is chosen. */
export interface SamplingOptions {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly seed: number | undefined;
}

/** Chooses tokens from logits: the same ones for the same seed. */
export class Sampler {
  readonly #options: SamplingOptions;
  readonly #random: () => number;
  readonly #seen = new Set<number>();

  constructor(options: SamplingOptions, prompt: readonly number[]) {
    this.#options = options;
    this.#random = randomNumbers(options.seed ?? Math.floor(Math.random() * 2 ** 32));
    if (options.repetitionPenalty !== 1) for (const id of prompt) this.#seen.add(id);
  }

  /** The next token. Clobbers `logits`. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` where they are NaN or infinite. */
  next(logits: Float32Array): number {
    const { temperature, repetitionPenalty } = this.#options;
    for (const id of this.#seen) {
      const logit = logits[id]!;
      logits[id] = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
    }
    const best = greatest(logits);
    if (!Number.isFinite(logits[best])) {
      const message = `Expected logits to be finite, got ${logits[best]}: the model's weights are not numbers, or too large.`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
    }
    const id = temperature === 0 ? best : this.#draw(logits, logits[best]!);
    if (repetitionPenalty !== 1) this.#seen.add(id);
    return id;
  }

  #draw(logits: Float32Array, highest: number): number {
    const { temperature, topK, topP, minP } = this.#options;
    const cutoff = Math.max(NEGLIGIBLE, Math.log(minP));
    const candidates = likeliest(logits, highest, temperature, cutoff, topK, topP);
    let rest = this.#random() * candidates.mass;
    for (let i = 0; i < candidates.ids.length; i++) {
      rest -= candidates.weights[i]!;
      if (rest < 0) return candidates.ids[i]!;
    }
    return candidates.ids.at(-1)!;
  }
}

/** Logarithm of the probability, relative to the likeliest token's, below which tokens are never drawn: 1e-13. */
const NEGLIGIBLE = -30;

/** The lowest index of the greatest number. */
export function greatest(numbers: Float32Array): number {
  let best = 0;
  for (let i = 1; i < numbers.length; i++) if (numbers[i]! > numbers[best]!) best = i;
  return best;
}

interface Candidates {
  readonly ids: readonly number[];
  /** Relative to that of the likeliest token, whose weight is 1. */
  readonly weights: readonly number[];
  readonly mass: number;
}

/** Buckets of a unit of scaled logit. Only candidates near the border are sorted: of 150,000 that would take 20 ms. */
const BUCKETS_PER_UNIT = 16;

/**
 * The tokens whose scaled logit is within `cutoff` of the highest; of these the `topK` likeliest (0: all); of these as
 * many of the
 * likeliest as have together `topP` of the mass.
 */
export function likeliest(
  logits: Float32Array,
  highest: number,
  temperature: number,
  cutoff: number,
  topK: number,
  topP: number,
): Candidates {
  const buckets: number[][] = Array.from({ length: Math.floor(-cutoff * BUCKETS_PER_UNIT) + 1 }, () => []);
  const scaled = (id: number) => (logits[id]! - highest) / temperature;
  for (let id = 0; id < logits.length; id++) {
    const distance = -scaled(id);
    if (distance <= -cutoff) buckets[Math.floor(distance * BUCKETS_PER_UNIT)]!.push(id);
  }
  const whole = topP < 1 ? massOfTop(buckets, scaled, topK) : Infinity;
  const ids: number[] = [];
  const weights: number[] = [];
  let mass = 0;
  for (const bucket of buckets) {
    // The lower id first where two are equal: the same draw on every engine.
    if (bucket.length > 1) bucket.sort((a, b) => logits[b]! - logits[a]! || a - b);
    for (const id of bucket) {
      if ((topK > 0 && ids.length === topK) || mass >= topP * whole) return { ids, weights, mass };
      const weight = Math.exp(scaled(id));
      ids.push(id);
      weights.push(weight);
      mass += weight;
    }
  }
  return { ids, weights, mass };
}

/** Mass of the `topK` likeliest tokens, or of all. */
function massOfTop(buckets: readonly number[][], scaled: (id: number) => number, topK: number): number {
  let [mass, left] = [0, topK > 0 ? topK : Infinity];
  for (const bucket of buckets) {
    const weights = bucket.map((id) => Math.exp(scaled(id)));
    if (bucket.length > left) weights.sort((a, b) => b - a);
    for (const weight of weights.slice(0, left)) mass += weight;
    left -= Math.min(left, bucket.length);
    if (left === 0) break;
  }
  return mass;
}

/** Uniform numbers in [0, 1): sfc32, with a state that all bits of the seed reach. */
export function randomNumbers(seed: number): () => number {
  let [a, b, c, d] = [seed | 0, Math.floor(seed / 2 ** 32) | 0, 0x9e3779b9 | 0, 1];
  const next = () => {
    const t = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 16; i++) next();
  return next;
}

/** How likely tokens are: natural logarithms of probabilities. */
export interface TokenLikelihoods {
  /** Of the token that was chosen. */
  readonly logprob: number;
  /** The likeliest, in order. */
  readonly top: readonly { readonly id: number; readonly logprob: number }[];
}

/** Reads what the model itself says, before temperature and penalties, of the `count` likeliest tokens, and of any. */
export function likelihoods(logits: Float32Array, count: number): (id: number) => TokenLikelihoods {
  const highest = logits[greatest(logits)]!;
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - highest);
  const total = highest + Math.log(sum);
  const ids: number[] = [];
  for (let id = 0; id < logits.length && count > 0; id++) {
    if (ids.length === count && logits[id]! <= logits[ids.at(-1)!]!) continue;
    const at = ids.findIndex((other) => logits[other]! < logits[id]!);
    ids.splice(at < 0 ? ids.length : at, 0, id);
    if (ids.length > count) ids.pop();
  }
  const top = ids.map((id) => ({ id, logprob: logits[id]! - total }));
  const own = logits.slice(); // whoever chooses writes to them
  return (id) => ({ logprob: own[id]! - total, top });
}
