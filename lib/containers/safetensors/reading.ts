import { HqqError } from '../../messages/errors.js';
import { quoteSome } from '../../messages/text.js';
import type { TensorEntry, TensorPart, TensorSource } from '../container.js';
import { columnReads } from '../experts.js';
import { Fp8Reader, originOf, widenedOf } from './fp8.js';
import { type Mxfp4Reader, mxfp4Of, mxfp4Origin } from './mxfp4.js';

// What tensors of a model are read otherwise than as bytes of a file: weights of FP8, experts of MXFP4, parts of stacks.

type Entries = ReadonlyMap<string, TensorEntry>;
type Source = Pick<TensorSource, 'read' | 'readSync'>;

/** How a model is read. */
export class Reading {
  /** Its tensors as the numbers that they are. */
  readonly entries: Entries;
  /** What some of them were; undefined where they are what the files hold. */
  readonly origin: string | undefined;
  readonly #fp8: Fp8Reader | undefined;
  readonly #mxfp4: Mxfp4Reader | undefined;

  constructor(entries: Entries, origin?: string, fp8?: Fp8Reader, mxfp4?: Mxfp4Reader) {
    this.entries = entries;
    this.origin = origin;
    this.#fp8 = fp8;
    this.#mxfp4 = mxfp4;
  }

  /** Reads bytes of a tensor, or of a part of one; undefined for one that is read from its file. */
  read(
    entry: TensorEntry,
    at: number,
    into: Uint8Array,
    source: Source,
    signal: AbortSignal | undefined,
  ): Promise<void> | undefined {
    const fp8 = this.#fp8?.of(entry);
    if (fp8) return this.#fp8!.read(fp8, at, into, source, signal);
    const mxfp4 = this.#mxfp4?.of(entry);
    if (mxfp4) return this.#mxfp4!.read(mxfp4, entry.part, at, into, source, signal);
    return entry.part && this.#readPart(entry, entry.part, at, into, source, signal);
  }

  /** Blocking twin of `read`; false for what is read from its file. */
  readSync(entry: TensorEntry, at: number, into: Uint8Array, source: Source): boolean {
    const read = (part: TensorEntry, from: number, to: Uint8Array) => source.readSync(part, from, to);
    const fp8 = this.#fp8?.of(entry);
    const mxfp4 = this.#mxfp4?.of(entry);
    if (fp8) this.#fp8!.readSync(fp8, at, into, read);
    else if (mxfp4) this.#mxfp4!.readSync(mxfp4, entry.part, at, into, read);
    else if (entry.part) {
      const { columns } = entry.part;
      const [whole, offset] = this.#wholeOf(entry, entry.part);
      if (columns === undefined) read(whole, offset + at, into);
      else {
        for (const part of columnReads(columns, entry.type.blockBytes, at, into)) {
          read(whole, offset + part.at, part.bytes);
          part.take();
        }
      }
    } else return false;
    return true;
  }

  async #readPart(
    entry: TensorEntry,
    part: TensorPart,
    at: number,
    into: Uint8Array,
    source: Source,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const [whole, offset] = this.#wholeOf(entry, part);
    if (part.columns === undefined) return source.read(whole, offset + at, into, signal);
    for (const piece of columnReads(part.columns, entry.type.blockBytes, at, into)) {
      await source.read(whole, offset + piece.at, piece.bytes, signal);
      piece.take();
    }
  }

  /** The tensor that it is a part of, and from which of its bytes on. */
  #wholeOf({ begin }: TensorEntry, { of }: TensorPart): readonly [TensorEntry, number] {
    const whole = this.entries.get(of);
    if (whole === undefined) {
      throw new HqqError(
        'ERR_INVALID_ARGUMENT',
        `Expected a part of a tensor of the model, got one of ${quoteSome([of])}.`,
      );
    }
    return [whole, begin - whole.begin];
  }
}

/** How the tensors of a model are read, by what its configuration says and its tensors show. */
export function readingOf(entries: Entries, config: Readonly<Record<string, unknown>> | undefined): Reading {
  const fp8 = widenedOf(entries, config);
  if (fp8) return new Reading(fp8.entries, originOf(fp8.tensors), new Fp8Reader(fp8.tensors));
  const mxfp4 = mxfp4Of(entries, config);
  if (mxfp4) return new Reading(mxfp4.entries, mxfp4Origin(mxfp4.tensors), undefined, mxfp4.reader);
  return new Reading(entries);
}
