import { inTurns, type Steps } from '../files/event-loop.js';
import { randomNumbers } from '../runtime/text/sampling.js';
import { randomTexts, textLengths } from './ids.js';
import type { Reader } from './reader.js';

// Random tokens as often as the model itself expects them: most of a vocabulary is rare in language, and what goes into layers on rare
// tokens alone is not what goes in on a text.

/** Short texts of tokens that are drawn from the whole vocabulary, all alike: what the model expects after each of them is averaged. */
const CONTEXTS = { count: 8, length: 16 } as const;

/** The greatest share of a token: a model that expects one token nearly always would tell of that one alone. */
const MOST = 1 / 64;

/** The least part of tokens tried that may be kept: seconds for a text. */
const LEAST_KEPT = 1e-5;

/** Tokens that are tried in one step. */
const AT_ONCE = 1 << 14;

/** What texts of likely tokens follow from. */
interface LikelyOptions {
  readonly tokens: number;
  readonly seed: number;
  readonly signal: AbortSignal | undefined;
  /** Called with the tokens that have been through a block while what the model expects is found, the sum over all blocks. */
  readonly progress?: ((done: number, total: number) => void) | undefined;
}

type Expecting = Pick<Reader, 'config' | 'expected'> & Partial<Pick<Reader, 'count'>>;

/**
 * Texts of tokens that are drawn one by one, each with the share that the model gives it after random ones: the same texts for the same seed.
 * Of a model that expects nothing (an encoder) all tokens are alike.
 */
export async function likelyTexts(reader: Expecting, options: LikelyOptions): Promise<readonly Uint32Array[]> {
  return drawTexts(await expectedShares(reader, options), reader.config, options);
}

/** What the model expects after random tokens, `[vocabSize]`; undefined where it expects nothing, or hardly any of its tokens. */
export async function expectedShares(
  { config, expected, count = 1 }: Expecting,
  { seed, signal, progress }: Omit<LikelyOptions, 'tokens'>,
): Promise<Float64Array | undefined> {
  const context = Math.min(CONTEXTS.length, config.maxPositions);
  const contexts = randomTexts(CONTEXTS.count * context, seed, { ...config, maxPositions: context });
  const total = count * contexts.reduce((sum, { length }) => sum + length, 0);
  if (expected) progress?.(0, total);
  const shares = await expected?.(contexts, signal, (done) => progress?.(done, total));
  return shares?.every(Number.isFinite) && keptOf(shares) >= LEAST_KEPT ? shares : undefined;
}

/** The part of tokens that are tried that is kept: no text would come of a model that expects none of its own. */
const keptOf = (shares: Float64Array): number =>
  shares.reduce((sum, share) => sum + Math.min(1, share / MOST), 0) / shares.length;

/** Texts of tokens with the shares of `expectedShares`. */
export async function drawTexts(
  shares: Float64Array | undefined,
  limits: Reader['config'],
  { tokens, seed, signal }: LikelyOptions,
): Promise<readonly Uint32Array[]> {
  if (shares === undefined) return randomTexts(tokens, seed, limits);
  return inTurns(draw(shares, textLengths(tokens, limits), seed), signal);
}

/**
 * A token that is drawn from all is kept with a probability in proportion to its share. So whether one is kept depends on its own share
 * alone, and shares that differ in their last bits, as between instruction sets, hardly ever change a token.
 */
function* draw(shares: Float64Array, lengths: readonly number[], seed: number): Steps<readonly Uint32Array[]> {
  const random = randomNumbers(seed);
  const texts: Uint32Array[] = [];
  let tried = 0;
  for (const length of lengths) {
    const ids = new Uint32Array(length);
    for (let at = 0; at < length; ) {
      if (++tried % AT_ONCE === 0) yield;
      const id = Math.floor(random() * shares.length);
      if (random() * MOST < shares[id]!) ids[at++] = id;
    }
    texts.push(ids);
  }
  return texts;
}
