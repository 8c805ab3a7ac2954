import { allocating } from '../messages/allocating.js';
import type { Columns, Made } from './range.js';

// Columns of matrices on their way into a file: a call for each row of narrow ones costs more than the bytes do, so that neighbours are
// gathered until they are wide.

/** Bytes of a strip, more or less: a few are in memory at once. */
const STRIP_BYTES = 6 * 1024 * 1024;

/** Memory of a strip that is no larger, as those of scales and zeros are. */
const SMALL_BYTES = 512 * 1024;

/** Bytes of a row from which columns are wide enough. */
const WIDE_BYTES = 4096;

/** Rows up to which columns take few calls. */
const FEW_ROWS = 4;

/** Strips are so many bytes wide, or a multiple of it. */
const UNIT_BYTES = 64;

/** Words that are copied one by one sooner than views of them are made. */
const FEW_WORDS = 128;

/** Neighbouring columns of a matrix, row after row. All numbers are bytes. */
interface Strip {
  readonly columns: Columns;
  readonly bytes: Uint8Array;
  /** What of them was put in. */
  readonly filled: Columns[];
  left: number;
}

/** What is to be written of a matrix. */
export type Gathered = Pick<Strip, 'columns' | 'bytes'>;

/** Memory of strips that were written, small or large ones: any of these will do, since what of it is never touched takes none. */
export type Spare = ArrayBuffer[];

const isSmall = (bytes: number): boolean => bytes <= SMALL_BYTES;

/** The strips of one matrix that lies in rows of `step` bytes. */
export class Strips {
  readonly #rows: number;
  readonly #step: number;
  readonly #width: number;
  readonly #spare: Spare;
  readonly #open = new Map<number, Strip>();

  /** @param first Some of its columns: others are as wide, as a rule, and then none of them is in two strips. */
  constructor({ rows, step, count }: Columns, spare: Spare) {
    const strips = Math.ceil((rows * step) / STRIP_BYTES);
    const unit = count % UNIT_BYTES === 0 ? count : UNIT_BYTES;
    this.#rows = rows;
    this.#step = step;
    this.#width = Math.min(step, unit * Math.ceil(step / strips / unit));
    this.#spare = spare;
  }

  /** Whether it is worth gathering columns like these. */
  static areFor({ count, rows, step }: Columns): boolean {
    return count < WIDE_BYTES && count < step && rows > FEW_ROWS;
  }

  /** Takes a copy of columns, or has them made. Gives the strips that are whole now; they are the caller's until `giveBack`. */
  async put(columns: Columns, from: Uint8Array | Made): Promise<readonly Gathered[]> {
    const { at: first, count: width, rows } = columns;
    const end = first + width;
    const only = this.#at(first);
    const place = first - only.columns.at;
    if (!(from instanceof Uint8Array) && place + width <= only.columns.count) {
      await from.lay(only.bytes.subarray(place), only.columns.count);
      return this.#fill(only, columns);
    }
    const bytes = from instanceof Uint8Array ? from : await from.bytes();
    const whole: Gathered[] = [];
    for (let at = first; at < end; ) {
      const strip = this.#at(at);
      const count = Math.min(end, strip.columns.at + strip.columns.count) - at;
      copy(bytes, at - first, width, strip.bytes, at - strip.columns.at, strip.columns.count, count, rows);
      whole.push(...this.#fill(strip, { ...columns, at, count }));
      at += count;
    }
    return whole;
  }

  /** Notes columns as filled. Gives the strip if they were its last. */
  #fill(strip: Strip, columns: Columns): readonly Gathered[] {
    strip.filled.push(columns);
    strip.left -= columns.count;
    if (strip.left > 0) return [];
    this.#open.delete(Math.floor(columns.at / this.#width));
    return [strip];
  }

  #at(at: number): Strip {
    const index = Math.floor(at / this.#width);
    return this.#open.get(index) ?? this.#begin(index);
  }

  #begin(index: number): Strip {
    const at = index * this.#width;
    const count = Math.min(this.#width, this.#step - at);
    const size = this.#rows * count;
    const room = isSmall(size) ? SMALL_BYTES : Math.max(STRIP_BYTES, size);
    const found = this.#spare.findIndex(
      ({ byteLength }) => byteLength >= size && isSmall(byteLength) === isSmall(size),
    );
    const [buffer] =
      found >= 0
        ? this.#spare.splice(found, 1)
        : [allocating(`${size} bytes of a part of a tensor`, () => new ArrayBuffer(room))];
    const strip: Strip = {
      columns: { at, count, rows: this.#rows, step: this.#step },
      ...{ bytes: new Uint8Array(buffer!, 0, size), filled: [], left: count },
    };
    this.#open.set(index, strip);
    return strip;
  }

  /** The memory of a strip that was written. */
  giveBack({ bytes }: Gathered): void {
    this.#spare.push(bytes.buffer as ArrayBuffer);
  }

  /** What was put into strips that never became whole, since the rest of them was written otherwise. */
  *rest(): Generator<Gathered> {
    for (const { columns: whole, bytes, filled } of this.#open.values()) {
      for (const columns of filled) {
        const { at, count, rows } = columns;
        const own = new Uint8Array(rows * count);
        copy(bytes, at - whole.at, whole.count, own, 0, count, count, rows);
        yield { columns, bytes: own };
      }
    }
    this.#open.clear();
  }
}

/** Copies `count` bytes of each of some rows, `stride` bytes apart in `from` and `step` in `to`. */
function copy(
  from: Uint8Array,
  first: number,
  stride: number,
  to: Uint8Array,
  at: number,
  step: number,
  count: number,
  rows: number,
): void {
  const numbers = [from.byteOffset + first, stride, to.byteOffset + at, step, count];
  if (count <= 4 * FEW_WORDS && numbers.every((number) => number % 4 === 0)) {
    const width = count / 4;
    const words = new Int32Array(from.buffer, from.byteOffset + first, ((rows - 1) * stride) / 4 + width);
    const out = new Int32Array(to.buffer, to.byteOffset + at, ((rows - 1) * step) / 4 + width);
    for (let row = 0, source = 0, place = 0; row < rows; row++, source += stride / 4, place += step / 4)
      for (let k = 0; k < width; k++) out[place + k] = words[source + k]!;
    return;
  }
  for (let row = 0; row < rows; row++)
    to.set(from.subarray(first + row * stride, first + row * stride + count), at + row * step);
}
