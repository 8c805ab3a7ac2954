import { beginOf, countAt, lengthOf, type Ranges } from './range.js';

/** Bytes of a tensor, from its begin. */
interface Span {
  begin: number;
  end: number;
}

/** The same bytes of every row of a tensor. */
interface Strips {
  readonly rows: number;
  /** Bytes of a row. */
  readonly step: number;
  /** Of a row: sorted, apart. */
  readonly spans: Span[];
}

/** Why bytes may not be written. */
export interface Refused {
  readonly begin: number;
  readonly end: number;
  readonly why: 'outside' | 'again';
}

/** Which bytes of a tensor are written, so that each is once: without a byte for each, nor a span for each of thousands of pieces. */
export class Written {
  readonly #size: number;
  /** Sorted, apart, one as long as pieces come in order. */
  #spans: Span[] = [];
  /** In place of spans, while what is written is columns of one matrix. */
  #strips: Strips | undefined;

  constructor(size: number) {
    this.#size = size;
  }

  /** Whether all of it is. */
  get whole(): boolean {
    const [span] = this.#spans;
    return this.#size === 0 || (this.#strips === undefined && span?.begin === 0 && span.end === this.#size);
  }

  /** Notes bytes as written, before they are: two writes at once to the same place must not both pass. */
  claim(begin: number, end: number): Refused | undefined {
    if (!this.#isInside(begin, end)) return { begin, end, why: 'outside' };
    if (begin === end) return undefined;
    this.#leaveStrips();
    return claimIn(this.#spans, begin, end) ? undefined : { begin, end, why: 'again' };
  }

  /** `claim` for many pieces, in bytes, sorted: in one pass. */
  claimAll(pieces: Ranges): Refused | undefined {
    if ('rows' in pieces && this.#size === pieces.rows * pieces.step) {
      const { at, count, rows, step } = pieces;
      const fits = Number.isSafeInteger(at) && at >= 0 && count > 0 && at + count <= step;
      const strips = this.#strips ?? (this.#spans.length === 0 ? { rows, step, spans: [] } : undefined);
      if (fits && strips?.step === step) {
        this.#strips = strips;
        if (!claimIn(strips.spans, at, at + count)) return { begin: at, end: at + count, why: 'again' };
        if (strips.spans[0]!.begin === 0 && strips.spans[0]!.end === step) this.#leaveStrips();
        return undefined;
      }
    }
    this.#leaveStrips();
    return this.#merge(pieces);
  }

  #isInside(begin: number, end: number): boolean {
    return Number.isSafeInteger(begin) && begin >= 0 && end <= this.#size;
  }

  #merge(pieces: Ranges): Refused | undefined {
    const known = this.#spans;
    const merged: Span[] = [];
    for (let i = 0, j = 0, count = lengthOf(pieces); i < known.length || j < count; ) {
      const isNew = i === known.length || (j < count && beginOf(pieces, j) < known[i]!.begin);
      const begin = isNew ? beginOf(pieces, j) : known[i]!.begin;
      const end = isNew ? begin + countAt(pieces, j) : known[i]!.end;
      if (isNew) j++;
      else i++;
      if (!this.#isInside(begin, end)) return { begin, end, why: 'outside' };
      if (begin === end) continue;
      const last = merged.at(-1);
      if (last !== undefined && last.end > begin) return { begin, end, why: 'again' };
      if (last?.end === begin) last.end = end;
      else merged.push({ begin, end });
    }
    this.#spans = merged;
    return undefined;
  }

  /** What is written as columns, as spans. */
  #leaveStrips(): void {
    if (this.#strips === undefined) return;
    const { rows, step, spans } = this.#strips;
    this.#strips = undefined;
    for (const { begin, end } of spans) this.#merge({ at: begin, count: end - begin, rows, step });
  }
}

/** Adds a span to others, sorted, unless they have a part of it. */
function claimIn(spans: Span[], begin: number, end: number): boolean {
  // The first span that begins behind: at the end when pieces come in order.
  let index = spans.length;
  for (let low = 0, high = index; low < high; ) {
    const middle = (low + high) >>> 1;
    if (spans[middle]!.begin >= end) high = index = middle;
    else low = middle + 1;
  }
  const before = spans[index - 1];
  const after = spans[index];
  if (before !== undefined && before.end > begin) return false;
  if (before?.end === begin) {
    before.end = end;
    if (after?.begin === end) {
      before.end = after.end;
      spans.splice(index, 1);
    }
  } else if (after?.begin === end) after.begin = begin;
  else spans.splice(index, 0, { begin, end });
  return true;
}
