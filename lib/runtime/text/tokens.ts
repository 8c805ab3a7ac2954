import { join } from 'node:path';
import { readWhole, systemCode } from '../../files/io.js';
import { type FilePath, pathOf } from '../../files/path.js';
import { HqqError } from '../../messages/errors.js';
import { refuseSurplus } from '../../messages/surplus.js';
import { formatError, plain } from '../../messages/text.js';

/** Largest tokenizer.json. Real ones have up to 35 MB. */
const MAX_TOKENIZER_BYTES = 256 * 1024 * 1024;

/** Text to token ids and back. */
export interface TextTokenizer {
  /** With what the tokenizer puts around a text, such as a token for its beginning. */
  encode(text: string): number[];
  /** Without special tokens. A character whose last bytes are still to come is shown as U+FFFD. */
  decode(ids: readonly number[]): string;
}

/**
 * The tokenizer of a model folder (`tokenizer.json` and, if there, `tokenizer_config.json`), read by `@huggingface/tokenizers`,
 * which is loaded when it is first needed.
 *
 * @throws {HqqError} `ERR_DEPENDENCY` when the package is not installed, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`
 */
export async function openTokenizer(path: FilePath): Promise<TextTokenizer> {
  refuseSurplus(arguments.length, 1, 'openTokenizer(path)');
  const folder = pathOf(path, 'the tokenizer', 'a model folder');
  const { Tokenizer } = await loadPackage();
  const tokenizer = await readJson(folder, 'tokenizer.json');
  const config = await readJson(folder, 'tokenizer_config.json').catch((error: unknown) => {
    if (error instanceof HqqError && systemCode(error.cause) === 'ENOENT') return {};
    throw error;
  });
  try {
    const opened = new Tokenizer(tokenizer, config);
    return {
      encode: (text) => opened.encode(text).ids,
      decode: (ids) =>
        ids.length === 0
          ? ''
          : opened.decode([...ids], { skip_special_tokens: true, clean_up_tokenization_spaces: false }),
    };
  } catch (error) {
    throw formatError(join(folder, 'tokenizer.json'), `the tokenizer cannot be made: ${plain(String(error))}`, {
      cause: error,
    });
  }
}

async function loadPackage(): Promise<typeof import('@huggingface/tokenizers')> {
  try {
    return await import('@huggingface/tokenizers');
  } catch (error) {
    const message =
      'Text needs the package @huggingface/tokenizers, which does not load. Install it (npm install @huggingface/tokenizers)';
    throw new HqqError('ERR_DEPENDENCY', `${message}, or pass token ids.`, { cause: error });
  }
}

async function readJson(folder: string, name: string): Promise<object> {
  const path = join(folder, name);
  const bytes = await readWhole(path, MAX_TOKENIZER_BYTES);
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    if (typeof value === 'object' && value !== null) return value;
  } catch (error) {
    throw formatError(path, `expected JSON: ${plain(String(error))}.`, { cause: error });
  }
  throw formatError(path, 'expected a JSON object.');
}

/** Replacement character: what the bytes of an unfinished character decode to. */
const UNFINISHED = '\uFFFD';

/**
 * Turns ids into text as they come. The text of a token depends on those before it (spaces, characters of several tokens), so a
 * few are decoded together each time and what was given before is taken away.
 */
export class TextStream {
  readonly #tokenizer: TextTokenizer;
  readonly #ids: number[] = [];
  /** Ids from here on are decoded; those before `#given` among them were given. */
  #context = 0;
  #given = 0;

  /** @param before Ids that precede the text, of which the last few decide how it begins. */
  constructor(tokenizer: TextTokenizer, before: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#ids.push(...before.slice(-CONTEXT));
    this.#given = this.#ids.length;
  }

  /** The text that `id` completes: often empty, sometimes that of several tokens. */
  push(id: number): string {
    this.#ids.push(id);
    const { old, now } = this.#decode();
    if (now.length <= old.length || now.endsWith(UNFINISHED)) return '';
    this.#context = this.#given;
    this.#given = this.#ids.length;
    return now.slice(old.length);
  }

  /** What is left when no more tokens come: an unfinished character as U+FFFD. */
  end(): string {
    const { old, now } = this.#decode();
    this.#context = this.#given = this.#ids.length;
    return now.slice(old.length);
  }

  #decode(): { readonly old: string; readonly now: string } {
    const old = this.#tokenizer.decode(this.#ids.slice(this.#context, this.#given));
    return { old, now: this.#tokenizer.decode(this.#ids.slice(this.#context)) };
  }
}

/** Tokens of a prompt that a text stream begins with. */
const CONTEXT = 8;
