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

/** Tokens that are tried in one step. */
const AT_ONCE = 1 << 14;

/**
 * Texts of tokens that are drawn one by one, each with the share that the model gives it after random ones: the same texts for the same seed.
 * Of a model that expects nothing (an encoder) all tokens are alike.
 */
export async function likelyTexts(
  reader: Pick<Reader, 'config' | 'expected'>,
  {
    tokens,
    seed,
    signal,
  }: { readonly tokens: number; readonly seed: number; readonly signal: AbortSignal | undefined },
): Promise<readonly Uint32Array[]> {
  const { config } = reader;
  const context = Math.min(CONTEXTS.length, config.maxPositions);
  const contexts = randomTexts(CONTEXTS.count * context, seed, { ...config, maxPositions: context });
  const shares = await reader.expected?.(contexts, signal);
  if (shares === undefined || !shares.every(Number.isFinite)) return randomTexts(tokens, seed, config);
  return inTurns(draw(shares, textLengths(tokens, config), seed), signal);
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
