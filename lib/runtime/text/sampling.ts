import { HqqError } from '../../messages/errors.js';
import { Drawer } from './draw.js';

/** How the next token is chosen. */
export interface SamplingOptions {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly seed: number | undefined;
}

/** Logarithm of the probability, relative to the likeliest token's, below which tokens are never drawn: 1e-13. */
const NEGLIGIBLE = -30;

/** What keeps a text to a format. */
interface Kept {
  /** Whether a token may come next. */
  accepts(id: number): boolean;
  /** Makes the logits of all others -Infinity. */
  only(logits: Float32Array): void;
}

/** Chooses tokens from logits: the same ones for the same seed. */
export class Sampler {
  readonly #options: SamplingOptions;
  readonly #random: () => number;
  readonly #drawer: Drawer;
  readonly #seen = new Set<number>();

  constructor(options: SamplingOptions, prompt: readonly number[]) {
    this.#options = options;
    const { temperature, topK, topP, minP } = options;
    this.#drawer = new Drawer({ temperature, topK, topP, cutoff: Math.max(NEGLIGIBLE, Math.log(minP)) });
    this.#random = randomNumbers(options.seed ?? Math.floor(Math.random() * 2 ** 32));
    if (options.repetitionPenalty !== 1) for (const id of prompt) this.#seen.add(id);
  }

  /**
   * The next token, of those that may come. Clobbers `logits`.
   *
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` where they are NaN or infinite; `ERR_INVALID_OPTION` where what the text is kept to leaves no token.
   */
  next(logits: Float32Array, kept?: Kept): number {
    const { repetitionPenalty } = this.#options;
    for (const id of this.#seen) {
      const logit = logits[id]!;
      logits[id] = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
    }
    let id = this.#choose(logits);
    for (let refused = 1; kept && !kept.accepts(id); refused++) {
      logits[id] = -Infinity;
      // What a model says by itself is tried first; where it says something else, all of the vocabulary is gone through once.
      if (refused === PATIENCE) {
        kept.only(logits);
        if (logits[greatest(logits)] === -Infinity) throw new HqqError('ERR_INVALID_OPTION', NO_NEXT);
      }
      id = this.#choose(logits);
    }
    if (repetitionPenalty !== 1) this.#seen.add(id);
    return id;
  }

  #choose(logits: Float32Array): number {
    const best = greatest(logits);
    if (!Number.isFinite(logits[best])) {
      const message = `Expected logits to be finite, got ${logits[best]}: the model's weights are not numbers, or too large.`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
    }
    return this.#options.temperature === 0 ? best : this.#drawer.draw(logits, logits[best]!, this.#random());
  }
}

const NO_NEXT =
  "Expected format to leave a next token, got a text that no token of the model's vocabulary goes on with: take a schema that it has the characters for.";

/** Tokens that are tried by themselves. */
const PATIENCE = 4;

/** The lowest index of the greatest number. */
export function greatest(numbers: Float32Array): number {
  let best = 0;
  let most = numbers[0]!;
  for (let i = 1; i < numbers.length; i += 8) {
    // Of eight at a time hardly ever one is greater: a test for all takes less than half the time of one each.
    const some =
      numbers[i]! > most ||
      numbers[i + 1]! > most ||
      numbers[i + 2]! > most ||
      numbers[i + 3]! > most ||
      numbers[i + 4]! > most ||
      numbers[i + 5]! > most ||
      numbers[i + 6]! > most ||
      numbers[i + 7]! > most;
    for (let at = i; some && at < i + 8; at++) if (numbers[at]! > most) most = numbers[(best = at)]!;
  }
  return best;
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
  readonly top: readonly TokenLikelihood[];
}

/** How likely the model finds a token. */
export interface TokenLikelihood {
  /** The token. */
  readonly id: number;
  /** The natural logarithm of its probability. */
  readonly logprob: number;
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
