import type { CollectProgress } from '../calibrate/collect.js';
import { cutTexts } from '../calibrate/ids.js';
import { likelyTexts } from '../calibrate/likely.js';
import { ownTexts } from '../calibrate/own.js';
import { encodeText, fileOfText, sentencesOf, textOfFile } from '../calibrate/text.js';
import { HqqError } from '../messages/errors.js';
import { plural } from '../messages/units.js';
import type { ResolvedTune } from '../models/tuning/option.js';
import type { TunedSource } from './source.js';

/** Of so many tokens that are trained on, one more is held back. */
const HELD_BACK = 8;

/** What a model is tuned with. */
export interface TuningTexts {
  readonly texts: readonly Uint32Array[];
  /** The first so many are trained on, the others held back. */
  readonly trained: number;
}

interface TextRun {
  readonly adapter: string | undefined;
  readonly seed: number;
  readonly threads: number | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: ((progress: CollectProgress) => void) | undefined;
}

/** @throws {HqqError} as `collectImportance`; `ERR_INVALID_ARGUMENT` for a text that is too short to hold some of it back */
export async function tuningTexts(
  { path, kind, config, reader }: TunedSource,
  { data, tokens, length }: ResolvedTune,
  { adapter, seed, threads, signal, onProgress }: TextRun,
): Promise<TuningTexts> {
  const total = tokens + Math.ceil(tokens / HELD_BACK);
  // At least one text of each kind.
  const textTokens = Math.max(2, Math.min(length, config.maxPositions, Math.floor(total / 2)));
  if (data === 'own') {
    const progress = (done: number) => onProgress?.({ phase: 'writing', done, total });
    return shared(await ownTexts(path, { tokens: total, textTokens, adapter, seed, threads, signal, progress }));
  }
  const limits = { ...config, textTokens };
  if (data === 'random') {
    const progress = (done: number, all: number) => onProgress?.({ phase: 'expecting', done, total: all });
    return shared(await likelyTexts({ ...reader, config: limits }, { tokens: total, seed, signal, progress }));
  }
  const text = typeof data === 'string' ? await textOfFile(fileOfText(data)!) : data.text;
  const run = { tokens: total, use: 'to tune with', signal };
  if (kind === 'encoder')
    return shared(await sentencesOf(path, text, { ...run, textTokens, config }), 'Give a text of more lines');
  const ids = await encodeText(path, text, run);
  if (ids.length < 4) {
    const message = `Expected a text to tune with of at least 4 tokens, got ${plural(ids.length, 'token')}`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message}.`);
  }
  const most = Math.min(textTokens, Math.floor(Math.min(ids.length, total) / 2));
  return shared(cutTexts(ids, total, { ...config, textTokens: most }));
}

/** A text of one token has nothing but its first, which does not count. */
function shared(all: readonly Uint32Array[], remedy = 'Give more tokens (tune.tokens, --tune-tokens)'): TuningTexts {
  const texts = all.filter(({ length }) => length > 1);
  if (texts.length < 2) {
    const message = `Expected at least two texts of 2 tokens to tune with, one of which is held back, got ${plural(texts.length, 'text')}`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${message}. ${remedy}.`);
  }
  const held = Math.max(1, Math.round(texts.length / (HELD_BACK + 1)));
  return { texts, trained: texts.length - held };
}
