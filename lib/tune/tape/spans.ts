/** Numbers of an array, or of a part of one. */
export type Floats = Float32Array;

type Span = readonly [from: number, to: number];

const spanOf = ({ byteOffset, byteLength }: Floats): Span => [byteOffset, byteOffset + byteLength];

/** Whether two arrays share memory. */
export function overlap(a: Floats, b: Floats): boolean {
  const [[from, to], [begin, end]] = [spanOf(a), spanOf(b)];
  return a.buffer === b.buffer && from < end && begin < to;
}

/** Some of the numbers that arrays hold, by where they lie: arrays may be parts of others. */
export class Spans {
  /** Of each buffer, in order and apart from each other. */
  readonly #of = new Map<ArrayBufferLike, readonly Span[]>();

  /** Whether some of an array's numbers are among them. */
  has(array: Floats): boolean {
    const [from, to] = spanOf(array);
    return this.#spans(array).some(([begin, end]) => from < end && begin < to);
  }

  add(array: Floats): void {
    this.remove(array);
    const spans = [...this.#spans(array), spanOf(array)].sort(([a], [b]) => a - b);
    this.#of.set(array.buffer, spans);
  }

  remove(array: Floats): void {
    const [from, to] = spanOf(array);
    const left = this.#spans(array).flatMap(([begin, end]): Span[] => [
      ...(begin < from ? [[begin, Math.min(end, from)] as const] : []),
      ...(end > to ? [[Math.max(begin, to), end] as const] : []),
    ]);
    this.#of.set(array.buffer, left);
  }

  /** The parts of an array that are not among them. */
  missing(array: Floats): Floats[] {
    const [from, to] = spanOf(array);
    const missing: Floats[] = [];
    const part = (begin: number, end: number) => {
      const at = (byte: number) => (byte - from) / Float32Array.BYTES_PER_ELEMENT;
      if (begin < end) missing.push(array.subarray(at(begin), at(end)));
    };
    let at = from;
    for (const [begin, end] of this.#spans(array)) {
      if (end <= from || begin >= to) continue;
      part(at, begin);
      at = end;
    }
    part(at, to);
    return missing;
  }

  #spans({ buffer }: Floats): readonly Span[] {
    return this.#of.get(buffer) ?? [];
  }
}
