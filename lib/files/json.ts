import { formatError, quote } from '../messages/text.js';
import { BACKSLASH, decodeUtf8, unescapeString } from './json-strings.js';

/**
 * Deepest nesting. Real headers have 3 levels, real configs fewer than 10. The parser recurses; a file of a million `[`
 * must not overflow the stack.
 */
export const MAX_JSON_DEPTH = 64;

/**
 * Most values in one document that becomes a tree (`value`). A value costs up to 60 bytes of heap and as little as two
 * bytes of text: without this limit 64 MB of `[],[],` would take more than a gigabyte.
 */
export const MAX_JSON_VALUES = 4_000_000;

/** Where the bytes come from, for messages. */
export interface JsonSource {
  /** Path, as messages show it. */
  readonly file: string;
  /** What part of the file the bytes are, if they are not the whole: `header`. */
  readonly what?: string | undefined;
  /** Accept `NaN`, `Infinity` and `-Infinity`, as Python writes them. */
  readonly allowNonFinite?: boolean | undefined;
  /** Position in the file of the first byte; messages add it. */
  readonly offset?: number | undefined;
}

/** The value that `bytes` hold: JSON in UTF-8 and nothing else. Duplicate keys are an error; `__proto__` is a key like others. */
export function parseJson(bytes: Uint8Array, source: JsonSource): unknown {
  const reader = new JsonReader(bytes, source);
  const value = reader.value();
  reader.end();
  return value;
}

/** Elements below which an array that has grown is copied: it has room for 17, of which there may be hundreds of thousands of pairs. */
const FEW = 9;

const QUOTE = 0x22;
const MINUS = 0x2d;
const BRACE = 0x7b;
const BRACKET = 0x5b;

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x30 && byte <= 0x39;
}

/**
 * Reads one JSON document, front to back. `value` builds a tree; `members`, `elements`, `string` and `integer` let a caller
 * that knows what must come read without one: a hostile file costs no more than what is kept of it.
 */
export class JsonReader {
  readonly #bytes: Buffer;
  readonly #source: JsonSource;
  #at = 0;
  #depth = 0;
  #values = 0;

  constructor(bytes: Uint8Array, source: JsonSource) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#source = source;
  }

  /** What stands next. */
  kind(): 'object' | 'array' | 'string' | 'number' | 'other' {
    const byte = this.#peek();
    if (byte === BRACE) return 'object';
    if (byte === BRACKET) return 'array';
    if (byte === QUOTE) return 'string';
    return byte === MINUS || isDigit(byte) ? 'number' : 'other';
  }

  /** Any value, as a tree. */
  value(): unknown {
    if (++this.#values > MAX_JSON_VALUES) this.fail(`expected at most ${MAX_JSON_VALUES} values`);
    switch (this.#peek()) {
      case BRACE:
        return this.object(() => this.value());
      case BRACKET: {
        const array: unknown[] = [];
        this.elements(() => array.push(this.value()));
        return array.length < FEW ? array.slice() : array;
      }
      case QUOTE:
        return this.string();
      case 0x74:
        return this.#literal('true', true);
      case 0x66:
        return this.#literal('false', false);
      case 0x6e:
        return this.#literal('null', null);
      default:
        return this.#number();
    }
  }

  /** An object: `visit` is called with each key and its position, and reads the value. Duplicates are for `visit` to notice. */
  members(visit: (key: string, at: number) => void): void {
    for (const [key, at] of this.keys()) visit(key, at);
  }

  /** `members` for who wants to do something else in between: reads the value of each key before asking for the next. */
  *keys(): Generator<readonly [key: string, at: number], void, void> {
    this.#open(BRACE, 'an object');
    if (this.#peek() === 0x7d) return void this.#close();
    for (;;) {
      if (this.#peek() !== QUOTE) this.#unexpected('a key in double quotes');
      const at = this.#at;
      const key = this.string();
      if (this.#peek() !== 0x3a) this.#unexpected('":"');
      this.#at++;
      yield [key, at];
      const byte = this.#peek();
      if (byte === 0x7d) return void this.#close();
      if (byte !== 0x2c) this.#unexpected('"," or "}"');
      this.#at++;
    }
  }

  /** An object as a tree. @param read Reads the member of a name, which stands next. */
  object(read: (key: string) => unknown): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    this.members((key, at) => {
      if (Object.hasOwn(object, key)) this.duplicate(key, at);
      const value = read(key);
      if (key !== '__proto__') object[key] = value;
      else Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true });
    });
    return object;
  }

  /** An array: `visit` is called with each index and reads the element. */
  elements(visit: (index: number) => void): void {
    this.#open(BRACKET, 'an array');
    if (this.#peek() === 0x5d) return void this.#close();
    for (let index = 0; ; index++) {
      visit(index);
      const byte = this.#peek();
      if (byte === 0x5d) return void this.#close();
      if (byte !== 0x2c) this.#unexpected('"," or "]"');
      this.#at++;
    }
  }

  string(): string {
    if (this.#peek() !== QUOTE) this.#unexpected('a string');
    const bytes = this.#bytes;
    const start = this.#at + 1;
    let union = 0;
    let escaped = false;
    let end = start;
    for (; ; end++) {
      if (end >= bytes.length) this.fail('expected the end of a string that begins here, got the end of the text');
      const byte = bytes[end] as number;
      if (byte === QUOTE) break;
      if (byte < 0x20) this.fail(`expected control characters in strings to be escaped, got byte ${byte}`, end);
      union |= byte;
      if (byte === BACKSLASH) {
        escaped = true;
        end++;
      }
    }
    this.#at = end + 1;
    const fail = (message: string, at: number) => this.fail(message, at);
    if (escaped) return unescapeString(bytes, start, end, fail);
    return union < 0x80 ? bytes.toString('latin1', start, end) : decodeUtf8(bytes.subarray(start, end), start, fail);
  }

  /** An integer from 0 to 2^53 - 1 written in plain digits; NaN where something else stands, which the caller reports. */
  integer(): number {
    if (!isDigit(this.#peek())) return Number.NaN;
    const start = this.#at;
    const value = this.#number();
    for (let i = start; i < this.#at; i++) if (!isDigit(this.#bytes[i])) return Number.NaN;
    return Number.isSafeInteger(value) ? value : Number.NaN;
  }

  /** Nothing but white space may follow. */
  end(): void {
    if (this.#peek() !== undefined) this.#unexpected('the end of the text');
  }

  duplicate(key: string, at: number): never {
    this.fail(`expected every key once, got ${quote(key)} again`, at);
  }

  fail(message: string, at = this.#at): never {
    const { file, what, offset = 0 } = this.#source;
    const where = `${message} (byte ${at + offset})`;
    throw formatError(
      file,
      `${what === undefined ? '' : `the ${what} is `}not valid JSON: ${where}. The file is damaged; fetch it again.`,
    );
  }

  /** The next byte that is not white space, not consumed; undefined at the end. */
  #peek(): number | undefined {
    const bytes = this.#bytes;
    let at = this.#at;
    while (at < bytes.length) {
      const byte = bytes[at] as number;
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) {
        this.#at = at;
        return byte;
      }
      at++;
    }
    this.#at = at;
    return undefined;
  }

  #unexpected(expected: string): never {
    const byte = this.#peek();
    if (byte === undefined) this.fail(`expected ${expected}, got the end of the text`);
    this.fail(
      `expected ${expected}, got ${byte > 0x20 && byte < 0x7f ? `"${String.fromCharCode(byte)}"` : `byte ${byte}`}`,
    );
  }

  #open(byte: number, what: string): void {
    if (this.#peek() !== byte) this.#unexpected(what);
    if (++this.#depth > MAX_JSON_DEPTH) this.fail(`expected at most ${MAX_JSON_DEPTH} levels of nesting`);
    this.#at++;
  }

  #close(): void {
    this.#depth--;
    this.#at++;
  }

  #literal<T>(text: string, value: T): T {
    if (this.#bytes.toString('latin1', this.#at, this.#at + text.length) !== text) this.#unexpected('a value');
    this.#at += text.length;
    return value;
  }

  #number(): number {
    const bytes = this.#bytes;
    const start = this.#at;
    let at = bytes[start] === MINUS ? start + 1 : start;
    if (this.#source.allowNonFinite === true && (bytes[at] === 0x49 || bytes[at] === 0x4e)) {
      if (bytes[at] === 0x4e) return this.#literal('NaN', Number.NaN);
      return at === start ? this.#literal('Infinity', Infinity) : this.#literal('-Infinity', -Infinity);
    }
    const digits = () => {
      const first = at;
      while (isDigit(bytes[at])) at++;
      if (at > first) return;
      this.#at = at;
      this.#unexpected(at === start ? 'a value' : 'a digit');
    };
    if (bytes[at] === 0x30 && isDigit(bytes[at + 1])) this.fail('expected a number without leading zeros');
    digits();
    if (bytes[at] === 0x2e) {
      at++;
      digits();
    }
    if (((bytes[at] ?? 0) | 0x20) === 0x65) {
      at++;
      if (bytes[at] === 0x2b || bytes[at] === MINUS) at++;
      digits();
    }
    const value = Number(bytes.toString('latin1', start, at));
    if (!Number.isFinite(value) && this.#source.allowNonFinite !== true)
      this.fail('expected a number below 1.8e308', start);
    this.#at = at;
    return value;
  }
}
