import { checkSignal } from '../../compute/signal.js';
import { checkInput } from '../../matrix/arrays.js';
import { isArray } from '../../matrix/validate.js';
import { allocating } from '../../messages/allocating.js';
import { HqqError, show } from '../../messages/errors.js';
import { rejectUnknownOptions } from '../../messages/options-object.js';
import type { Tap } from '../blocks/tap.js';
import { MAX_CONTEXT } from '../load-options.js';

// What comes into a part of a model: rows of numbers, and how they are to be run.

/** How a part of a model runs. */
export interface PartRun {
  /** Is shown what goes into every linear layer, for up to 256 rows of a text at a time. @see Tap */
  readonly tap?: Tap | undefined;
  /** Ends the call: it rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

function refuse(message: string, code: 'ERR_INVALID_ARGUMENT' | 'ERR_INVALID_OPTION' = 'ERR_INVALID_ARGUMENT'): never {
  throw new HqqError(code, message);
}

/** @throws {HqqError} `ERR_INVALID_OPTION` */
export function checkPartRun(run: PartRun & { readonly onProgress?: unknown }, more: readonly string[]): void {
  if (typeof run !== 'object' || run === null)
    refuse(`Expected the options to be an object, got ${show(run)}.`, 'ERR_INVALID_OPTION');
  rejectUnknownOptions(run, ['tap', 'signal', ...more]);
  checkSignal(run.signal);
  for (const name of ['tap', 'onProgress'] as const) {
    if (run[name] !== undefined && typeof run[name] !== 'function')
      refuse(`Expected ${name} to be a function, got ${show(run[name])}.`, 'ERR_INVALID_OPTION');
  }
}

/** Rows of `width` numbers. Gives how many there are. */
export function checkRows(x: Float32Array, name: string, width: number): number {
  if (!isArray(x, 'Float32Array')) refuse(`Expected ${name} to be a Float32Array, got ${show(x)}.`);
  checkInput(x, name);
  const rows = x.length / width;
  if (Number.isInteger(rows) && rows >= 1 && rows <= MAX_CONTEXT) return rows;
  return refuse(`Expected ${name} to have 1 to ${MAX_CONTEXT} rows of ${width} numbers (hiddenSize), got ${x.length}.`);
}

/** Checks texts, and checks or allocates what a block makes of them. */
export function resultsOf(
  texts: readonly Float32Array[],
  outs: readonly Float32Array[] | undefined,
  width: number,
): readonly Float32Array[] {
  const demandList = (value: unknown, name: string) => {
    if (!Array.isArray(value)) refuse(`Expected ${name} to be a list of Float32Array, one a text, got ${show(value)}.`);
  };
  demandList(texts, 'texts');
  texts.forEach((text, i) => {
    checkRows(text, `texts[${i}]`, width);
  });
  if (outs === undefined)
    return texts.map(({ length }) => allocating('what comes out of a block', () => new Float32Array(length)));
  demandList(outs, 'out');
  if (outs.length !== texts.length) refuse(`Expected out to have ${texts.length} arrays as texts, got ${outs.length}.`);
  outs.forEach((out, i) => {
    checkRows(out, `out[${i}]`, width);
    if (out.length !== texts[i]!.length)
      refuse(`Expected out[${i}] to have ${texts[i]!.length} numbers as texts[${i}], got ${out.length}.`);
  });
  const clash = overlapping(texts, outs);
  if (clash) refuse(`Expected out to be memory of its own, or texts themselves; ${clash} share some.`);
  return outs;
}

/** Places of texts that run together: as many as have no more than `most` numbers in all, in their order. */
export function togetherOf(texts: readonly Float32Array[], most: number): number[][] {
  const groups: number[][] = [];
  let left = 0;
  for (const [i, { length }] of texts.entries()) {
    if (length <= left) groups.at(-1)!.push(i);
    else {
      groups.push([i]);
      left = most;
    }
    left -= length;
  }
  return groups;
}

/** Two arrays of which one would be written to while the other is needed. An `out` may be the very text that it is made of. */
function overlapping(texts: readonly Float32Array[], outs: readonly Float32Array[]): string | undefined {
  const isOwn = (text: Float32Array, i: number) =>
    text.buffer === outs[i]!.buffer && text.byteOffset === outs[i]!.byteOffset;
  const named = [
    ...outs.map((array, i) => ({ name: `out[${i}]`, array, written: true })),
    ...texts.flatMap((array, i) => (isOwn(array, i) ? [] : [{ name: `texts[${i}]`, array, written: false }])),
  ].sort((a, b) => a.array.byteOffset - b.array.byteOffset);
  const endOf = ({ array }: (typeof named)[number]) => array.byteOffset + array.byteLength;
  /** By buffer: of those so far, what ends last, and what ends last of those that are written. */
  const last = new Map<ArrayBufferLike, { any: (typeof named)[number]; written?: (typeof named)[number] }>();
  for (const one of named) {
    const before = last.get(one.array.buffer);
    const other = one.written ? before?.any : before?.written;
    if (other && one.array.byteOffset < endOf(other)) return `${other.name} and ${one.name}`;
    const any = before && endOf(before.any) > endOf(one) ? before.any : one;
    const written = !one.written || (before?.written && endOf(before.written) > endOf(one)) ? before?.written : one;
    last.set(one.array.buffer, { any, ...(written && { written }) });
  }
  return undefined;
}
