import { randomNumbers } from '../runtime/text/sampling.js';

/** Tokens of a text that statistics are taken of, of a model that was trained for as many. */
export const TEXT_TOKENS = 256;

/** Of a model. */
interface Limits {
  /** Tokens of a text, at most. @default TEXT_TOKENS */
  readonly textTokens?: number | undefined;
  readonly vocabSize: number;
  readonly maxPositions: number;
}

/** How `tokens` are shared out to texts: long ones, and a shorter one for the rest. */
export function textLengths(tokens: number, { maxPositions, textTokens = TEXT_TOKENS }: Limits): readonly number[] {
  const most = Math.min(textTokens, maxPositions);
  const whole = Array.from({ length: Math.floor(tokens / most) }, () => most);
  const rest = tokens % most;
  return rest === 0 ? whole : [...whole, rest];
}

/** Texts of tokens that are drawn from the whole vocabulary, all alike: the same ones for the same seed. */
export function randomTexts(tokens: number, seed: number, limits: Limits): readonly Uint32Array[] {
  const random = randomNumbers(seed);
  const draw = () => Math.floor(random() * limits.vocabSize);
  return textLengths(tokens, limits).map((length) => Uint32Array.from({ length }, draw));
}

/** The beginning of a text, cut into texts. */
export function cutTexts(ids: ArrayLike<number>, tokens: number, limits: Limits): readonly Uint32Array[] {
  let at = 0;
  return textLengths(Math.min(tokens, ids.length), limits).map((length) => {
    const text = Uint32Array.from({ length }, (_, i) => ids[at + i]!);
    at += length;
    return text;
  });
}
