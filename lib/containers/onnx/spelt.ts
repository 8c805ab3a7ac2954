import type { Field, Message } from './wire.js';

// Numbers of a tensor that are spelt one by one: floats with a tag before each, and float16 and bfloat16 as whole numbers. As bytes
// that lie together, as they would in raw_data.

/** Fields of a tensor that spell its numbers: float_data, int32_data. */
export const SPELT: ReadonlySet<number> = new Set([4, 5]);

/** Bytes of the numbers of a tensor of this many; undefined where they are others, or not as many. */
export function speltNumbers({ fields }: Message, type: string, count: number): Uint8Array | undefined {
  if (type === 'F32') return speltFloats(fields, count);
  return type === 'F16' || type === 'BF16' ? speltHalves(fields, count) : undefined;
}

function speltFloats(fields: readonly Field[], count: number): Uint8Array | undefined {
  if (!(count <= MAX_NUMBERS)) return undefined;
  const bytes = new Uint8Array(4 * count);
  let at = 0;
  for (const { number, wire, payload } of fields) {
    if (number !== 4 || !(payload instanceof Uint8Array)) continue;
    if (wire !== 5) return undefined;
    // A run: numbers, and between them the byte of their tag.
    for (let from = 0; from < payload.length; from += 5, at += 4) {
      if (at === bytes.length) return undefined;
      bytes.set(payload.subarray(from, from + 4), at);
    }
  }
  return at === bytes.length ? bytes : undefined;
}

function speltHalves(fields: readonly Field[], count: number): Uint8Array | undefined {
  if (!(count <= MAX_NUMBERS)) return undefined;
  const halves = new Uint16Array(count);
  let at = 0;
  for (const { number, wire, payload } of fields) {
    if (number !== 5 || !(payload instanceof Uint8Array)) continue;
    for (let from = 0; from < payload.length; at++) {
      const first = from;
      while (payload[from]! >= 0x80) from++;
      const length = ++from - first;
      // Sixteen bits take three bytes; ten are those of a negative number, whose last bits these are.
      if (at === count || from > payload.length || (length > 3 && length !== 10)) return undefined;
      const [a, b = 0, c = 0] = payload.subarray(first, from) as unknown as [number, number?, number?];
      const value = (a & 0x7f) | ((b & 0x7f) << 7) | ((c & 0x7f) << 14);
      if (length <= 3 && value > 0xffff) return undefined;
      halves[at] = value;
      if (wire === 0) from++; // the tag of the next one
    }
  }
  return at === count ? new Uint8Array(halves.buffer) : undefined;
}

/** As many as fit into what is read of a graph. */
const MAX_NUMBERS = 2 ** 27;

/** Bytes in memory that are read as those of a file are. */
export class SpeltBytes {
  readonly path: string;
  readonly #pieces: Uint8Array[] = [];
  #size = 0;

  /** @param path The file that spells them, for messages. */
  constructor(path: string) {
    this.path = path;
  }

  get size(): number {
    return this.#size;
  }

  /** Adds bytes; they begin where the others end. */
  add(bytes: Uint8Array): number {
    this.#pieces.push(bytes);
    this.#size += bytes.length;
    return this.#size - bytes.length;
  }

  async read(position: number, into: Uint8Array): Promise<void> {
    this.readSync(position, into);
  }

  readSync(position: number, into: Uint8Array): void {
    let begin = 0;
    for (const piece of this.#pieces) {
      const [first, last] = [Math.max(begin, position), Math.min(begin + piece.length, position + into.length)];
      if (first < last) into.set(piece.subarray(first - begin, last - begin), first - position);
      begin += piece.length;
    }
  }

  async close(): Promise<void> {}
}
