import { formatError } from '../../messages/text.js';

/** Thrown where bytes end that are only the first of a file: more of it must be read, and the work be done again. */
export const MORE = Symbol('more of the file is needed');

/** The bytes of a file from its begin on, and how far they were read. Trusts nothing. */
export class ByteCursor {
  at: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #path: string;
  readonly #fileSize: number;

  /** @param bytes All of the file, or its first. */
  constructor(bytes: Uint8Array, path: string, fileSize: number, at = 0) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#path = path;
    this.#fileSize = fileSize;
    this.at = at;
  }

  /** Goes over `count` bytes. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` where the file ends before. */
  skip(count: number, what: string): number {
    const { at } = this;
    if (count > this.#fileSize - at) {
      const claim = `${what} at byte ${at} claims ${count} bytes, but the file has ${this.#fileSize}`;
      throw this.error(`${claim}. It is truncated or damaged.`);
    }
    if (count > this.#bytes.byteLength - at) throw MORE;
    this.at = at + count;
    return at;
  }

  view(count: number): DataView {
    const at = this.skip(count, 'a number');
    return new DataView(this.#view.buffer, this.#view.byteOffset + at, count);
  }

  u32(): number {
    return this.#view.getUint32(this.skip(4, 'a number'), true);
  }

  /** A length or a count, of which the file cannot hold more than it has bytes. */
  u64(what: string): number {
    const { at } = this;
    const value = this.big();
    // As a BigInt: the field is unsigned and may say anything up to 2^64 - 1.
    if (value <= BigInt(this.#fileSize)) return Number(value);
    throw this.error(
      `${what} at byte ${at} claims ${value}, but the file has ${this.#fileSize} bytes. It is truncated or damaged.`,
    );
  }

  big(): bigint {
    return this.#view.getBigUint64(this.skip(8, 'a number'), true);
  }

  /** Text of `length` bytes. */
  text(length: number): string {
    const at = this.skip(length, 'a text');
    return Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset + at, length).toString('utf8');
  }

  bytes(from: number, to: number): Uint8Array {
    return this.#bytes.subarray(from, to);
  }

  error(message: string) {
    return formatError(this.#path, message);
  }
}
