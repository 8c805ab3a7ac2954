import type { TextTokenizer } from './tokenizer.js';

/** Replacement character: what the bytes of an unfinished character decode to. */
const UNFINISHED = '\uFFFD';

/** Tokens of a prompt that a text stream begins with. */
const CONTEXT = 8;

/**
 * Turns ids into text as they come. The text of a token depends on those before it (spaces, characters of several tokens), so a
 * few are decoded together each time and what was given before is taken away.
 */
export class TextStream {
  readonly #tokenizer: Pick<TextTokenizer, 'decode'>;
  readonly #ids: number[] = [];
  /** Ids from here on are decoded; those before `#given` among them were given. */
  #context = 0;
  #given = 0;

  /** @param before Ids that precede the text, of which the last few decide how it begins. */
  constructor(tokenizer: Pick<TextTokenizer, 'decode'>, before: readonly number[]) {
    this.#tokenizer = tokenizer;
    this.#ids.push(...before.slice(-CONTEXT));
    this.#given = this.#ids.length;
  }

  /** The text that `id` completes: often empty, sometimes that of several tokens. */
  async push(id: number): Promise<string> {
    this.#ids.push(id);
    const [old, now] = await this.#decode();
    if (now.length <= old.length || now.endsWith(UNFINISHED)) return '';
    this.#context = this.#given;
    this.#given = this.#ids.length;
    return now.slice(old.length);
  }

  /** What is left when no more tokens come: an unfinished character as U+FFFD. */
  async end(): Promise<string> {
    const [old, now] = await this.#decode();
    this.#context = this.#given = this.#ids.length;
    return now.slice(old.length);
  }

  #decode(): Promise<[old: string, now: string]> {
    const decode = (end?: number) => this.#tokenizer.decode(this.#ids.slice(this.#context, end));
    return Promise.all([decode(this.#given), decode()]);
  }
}
