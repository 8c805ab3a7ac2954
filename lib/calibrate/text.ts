import { untilAborted } from '../compute/signal.js';
import { readWhole } from '../files/io.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { linesAsIds } from '../runtime/encoder/sentences.js';
import { openTokenizer } from '../runtime/text/tokenizer.js';
import { TEXT_TOKENS } from './ids.js';

/** Largest text. Only its beginning is read by the model, but all of it by the tokenizer. */
const MAX_TEXT_BYTES = 256 * 1024 * 1024;

const PREFIX = 'text:';

/** The file that `text:<file>` names; undefined for what is no such text. */
export function fileOfText(importance: string): string | undefined {
  return importance.startsWith(PREFIX) ? importance.slice(PREFIX.length) : undefined;
}

/** @throws {HqqError} `ERR_IO`, `ERR_INVALID_ARGUMENT` for what is no text. */
export async function textOfFile(file: string): Promise<string> {
  const bytes = await readWhole(file, MAX_TEXT_BYTES);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new HqqError('ERR_INVALID_ARGUMENT', `Expected ${plain(file)} to be UTF-8 text, got other bytes.`, { cause });
  }
}

/** Characters of a text that are certain to give a token, at least: more than enough need not be read. */
const CHARACTERS_PER_TOKEN = 64;

/** The beginning of a text, as the model's tokenizer has it: `tokens` or more, where it has so many. `use` is what for, in errors. */
export async function encodeText(
  path: string,
  text: string,
  { tokens, use, signal }: TextRun,
): Promise<readonly number[]> {
  const tokenizer = await untilAborted(openTokenizer(path), signal);
  try {
    const ids = await untilAborted(tokenizer.encode(text.slice(0, tokens * CHARACTERS_PER_TOKEN)), signal);
    if (ids.length > 0) return ids;
    throw emptyText(use);
  } finally {
    await tokenizer.close();
  }
}

/** The beginning of a text for an encoder: each line by itself. @throws {HqqError} as `encodeText` */
export async function sentencesOf(
  path: string,
  text: string,
  { tokens, textTokens = TEXT_TOKENS, config, use, signal }: SentencesRun,
): Promise<readonly Uint32Array[]> {
  const most = Math.min(textTokens, tokens, config.maxPositions);
  const lines = await linesAsIds(path, text, { most, count: tokens, signal });
  if (lines.length > 0) return lines.map((ids) => Uint32Array.from(ids));
  throw emptyText(use);
}

function emptyText(use: string): HqqError {
  return new HqqError('ERR_INVALID_ARGUMENT', `Expected a text ${use}, got one without a token.`);
}

interface TextRun {
  readonly tokens: number;
  /** What it is for, in errors: `'for importance'`. */
  readonly use: string;
  readonly signal: AbortSignal | undefined;
}

interface SentencesRun extends TextRun {
  /** Tokens of a line, at most. @default TEXT_TOKENS */
  readonly textTokens?: number | undefined;
  readonly config: { readonly maxPositions: number };
}
