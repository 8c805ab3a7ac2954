import { allocating } from '../messages/allocating.js';

/** Buffers above are made as large as they must be; smaller ones grow in powers of two. */
const LARGE_BYTES = 512 * 1024;

/** Smallest buffer: growing from less would be done again soon. */
const MIN_BYTES = 64 * 1024;

interface ArrayClass<T> {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBuffer, byteOffset: number, length: number): T;
}

/** Buffers of one slot, by name, used again and again: memory that is given back and taken anew costs more than the work. */
export class Scratch {
  readonly #buffers = new Map<string, ArrayBuffer>();
  readonly #parts = new Map<string, Scratch>();

  /** A scratch of its own, the same for the same name: for what runs at the same time as others of this slot. */
  part(name: string): Scratch {
    let part = this.#parts.get(name);
    if (part === undefined) this.#parts.set(name, (part = new Scratch()));
    return part;
  }

  /**
   * An array of `length` elements with anything in it. It is the caller's until the same name is asked for again.
   *
   * @throws {HqqError} `ERR_OUT_OF_MEMORY`
   */
  take<T>(name: string, kind: ArrayClass<T>, length: number): T {
    const bytes = length * kind.BYTES_PER_ELEMENT;
    let buffer = this.#buffers.get(name);
    if (!buffer || buffer.byteLength < bytes) {
      this.#buffers.delete(name); // the old one may go before the new one comes
      const size = bytes > LARGE_BYTES ? bytes : Math.max(MIN_BYTES, 2 ** Math.ceil(Math.log2(bytes || 1)));
      buffer = allocating(`${bytes} bytes of a part of a tensor`, () => new ArrayBuffer(size));
      this.#buffers.set(name, buffer);
    }
    return new kind(buffer, 0, length);
  }
}
