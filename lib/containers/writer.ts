import * as fs from 'node:fs';
import { basename, dirname } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { promisify } from 'node:util';
import { inTurns, type Steps, yieldIfDue } from '../files/event-loop.js';
import {
  closeFile,
  createFile,
  ensureFreeSpace,
  PAGE_BYTES,
  syncFile,
  withPath,
  writeFully,
  writeFullySync,
} from '../files/io.js';
import { HqqError } from '../messages/errors.js';
import { plain, quoteSome } from '../messages/text.js';
import type { Layout, TensorEntry, TensorSink } from './container.js';
import { beginOf, countAt, countOf, lengthOf, type Made, type Ranges } from './range.js';
import { type Gathered, type Spare, Strips } from './strips.js';
import { type Refused, Written } from './written.js';

const ftruncate = promisify(fs.ftruncate);

/** Bytes that `writePieces` writes before it lets others run: some milliseconds. */
const TURN_BYTES = 256 * 1024;
const TURN_PIECES = 512;

/** Bytes that are sent to the disk while others are still computed: at the end there is little left to wait for. */
const FLUSH_BYTES = 32 * 1024 * 1024;

/** Bytes of a file that are no tensor's. */
export interface FilePiece {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** A layout whose file begins with `header`. */
export interface FileLayout extends Layout {
  readonly header: Uint8Array;
  /** What else is no tensor. Tensors that lie within are written over it. */
  readonly more?: readonly FilePiece[];
}

/** Bytes of a file that are written last. What begins with zeros in their place is a file of no format that is written so. */
const HELD_BYTES = 8;

/** Writes one file whose layout is known: tensors in any order, in any pieces, each byte once. */
export class FileWriter implements TensorSink {
  readonly path: string;
  readonly layout: FileLayout;
  #fd: number | undefined;
  #failed = false;
  /** `finish` is under way: nothing may begin that it would not wait for. */
  #finishing = false;
  #unflushed = 0;
  #flush: Promise<void> | undefined;
  #flushError: unknown;
  /** What is written of each tensor. */
  readonly #written = new Map<string, Written>();
  readonly #writes = new Set<Promise<void>>();
  /** Narrow columns of tensors, until they are wide. */
  readonly #strips = new Map<string, Strips>();
  readonly #spare: Spare = [];

  private constructor(path: string, layout: FileLayout, fd: number) {
    this.path = path;
    this.layout = layout;
    this.#fd = fd;
  }

  /**
   * Creates the file, which must not exist, at its full size, and writes the header, save its first bytes: until `finish`
   * adds them, the file cannot be read. A killed run would leave one that looks whole and holds zeros.
   *
   * @param mode permissions of the file, before the umask
   * @throws {HqqError} `ERR_IO`: the disk has too little space, the file exists or cannot be created. Nothing is left behind.
   */
  static async create(path: string, layout: FileLayout, mode?: number): Promise<FileWriter> {
    await ensureFreeSpace(dirname(path), layout.fileSize);
    const fd = await createFile(path, mode);
    try {
      await writeFully(fd, path, HELD_BYTES, layout.header.subarray(HELD_BYTES));
      for (const { at, bytes } of layout.more ?? []) await writeFully(fd, path, at, bytes);
      await withPath('Cannot write', path, () => ftruncate(fd, layout.fileSize));
      return new FileWriter(path, layout, fd);
    } catch (error) {
      await closeFile(fd);
      await fs.promises.rm(path, { force: true }).catch(() => {});
      throw error;
    }
  }

  /**
   * Writes `bytes` from byte `byteOffset` of tensor `name`. `bytes` must stay as they are until the promise settles.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a tensor that the layout does not have, bytes outside of it, or bytes that
   * were written before; `ERR_IO` when the system cannot write.
   */
  async write(name: string, byteOffset: number, bytes: Uint8Array): Promise<void> {
    const fd = this.#open();
    const entry = this.layout.entries.get(name);
    if (entry === undefined) throw this.#misuse(`the layout to have tensor ${quoteSome([name])}`, 'no such tensor');
    this.#claim(entry, (written) => written.claim(byteOffset, byteOffset + bytes.byteLength));
    await this.#track(this.#put(fd, entry.begin + byteOffset, bytes));
    this.#flushSome(fd, bytes.byteLength);
  }

  async #put(fd: number, position: number, bytes: Uint8Array): Promise<void> {
    if (bytes.byteLength > PAGE_BYTES) return writeFully(fd, this.path, position, bytes);
    writeFullySync(fd, this.path, position, bytes);
    await yieldIfDue();
  }

  /**
   * Writes `bytes` to `pieces` of tensor `name`, one after the other: in bytes, sorted, apart. For many short ones: blocking
   * calls, a few milliseconds' worth at a time, since a call that waits for a thread takes ten times as long. Narrow columns of a
   * matrix are gathered, and written when neighbours have made them wide: an error of the system comes to who brings the last of these.
   *
   * @throws {HqqError} as `write`; the signal's reason when aborted, after which the file can only be abandoned.
   */
  async writePieces(name: string, pieces: Ranges, from: Uint8Array | Made, signal: AbortSignal): Promise<void> {
    const fd = this.#open();
    const entry = this.layout.entries.get(name);
    if (entry === undefined) throw this.#misuse(`the layout to have tensor ${quoteSome([name])}`, 'no such tensor');
    this.#claim(entry, (written) => written.claimAll(pieces));
    await this.#track(this.#gather(fd, entry, pieces, from, signal));
    this.#flushSome(fd, countOf(pieces));
  }

  async #gather(fd: number, entry: TensorEntry, pieces: Ranges, from: Uint8Array | Made, signal: AbortSignal) {
    const strips = this.#stripsFor(entry, pieces);
    if (strips !== undefined && 'rows' in pieces)
      return this.#putStrips(fd, entry, strips, await strips.put(pieces, from), signal);
    return this.#putPieces(fd, entry, pieces, from instanceof Uint8Array ? from : await from.bytes(), signal);
  }

  /** What gathers columns of a tensor, if they are narrow: the first ones tell. */
  #stripsFor({ name, begin, end }: TensorEntry, pieces: Ranges): Strips | undefined {
    if (!('rows' in pieces) || pieces.rows * pieces.step !== end - begin) return undefined;
    let strips = this.#strips.get(name);
    if (strips === undefined && Strips.areFor(pieces))
      this.#strips.set(name, (strips = new Strips(pieces, this.#spare)));
    return strips;
  }

  async #putStrips(
    fd: number,
    entry: TensorEntry,
    strips: Strips,
    whole: readonly Gathered[],
    signal: AbortSignal,
  ): Promise<void> {
    await setImmediate(); // what was copied took its time, and an abort may wait
    signal.throwIfAborted();
    for (const strip of whole) {
      const { columns, bytes } = strip;
      if (columns.count < columns.step) await this.#putPieces(fd, entry, columns, bytes, signal);
      else await writeFully(fd, this.path, entry.begin, bytes);
      strips.giveBack(strip);
    }
  }

  async #putPieces(
    fd: number,
    entry: TensorEntry,
    pieces: Ranges,
    bytes: Uint8Array,
    signal: AbortSignal,
  ): Promise<void> {
    let offset = 0;
    for (let next = 0, length = lengthOf(pieces); next < length; ) {
      signal.throwIfAborted();
      const turn = offset + TURN_BYTES;
      for (const stop = next + TURN_PIECES; next < length && next < stop && offset < turn; next++) {
        const end = offset + countAt(pieces, next);
        writeFullySync(fd, this.path, entry.begin + beginOf(pieces, next), bytes, offset, end);
        offset = end;
      }
      await setImmediate();
    }
  }

  /** Begins to send what was written to the disk, where that is worth it. Nobody waits for it but the end. */
  #flushSome(fd: number, bytes: number): void {
    this.#unflushed += bytes;
    if (this.#unflushed < FLUSH_BYTES || this.#flush !== undefined || this.#fd === undefined) return;
    // Its descriptor would be closed under it; and of an error the system tells the first who asks, which must be `finish`.
    if (this.#finishing) return;
    this.#unflushed = 0;
    this.#flush = syncFile(fd, this.path)
      .catch((error: unknown) => {
        this.#flushError ??= error;
      })
      .finally(() => {
        this.#flush = undefined;
      });
  }

  async #track(writing: Promise<void>): Promise<void> {
    this.#writes.add(writing);
    try {
      await writing;
    } catch (error) {
      this.#failed = true;
      throw error;
    } finally {
      this.#writes.delete(writing);
    }
  }

  /**
   * Waits until everything is on the disk, makes the file readable and closes it.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` when a tensor is not completely written: the file would hold zeros in its place.
   */
  async finish(): Promise<void> {
    const fd = this.#open();
    this.#finishing = true;
    try {
      await Promise.allSettled([...this.#writes, this.#flush]);
      if (this.#flushError !== undefined) throw this.#flushError;
      if (this.#failed) throw this.#misuse('every write to succeed', 'a failed one');
      await inTurns(this.#demandWhole());
      await this.#putRest(fd);
      await syncFile(fd, this.path);
      await writeFully(fd, this.path, 0, this.layout.header.subarray(0, HELD_BYTES));
      await syncFile(fd, this.path);
    } finally {
      this.#finishing = false;
    }
    this.#fd = undefined;
    await closeFile(fd);
  }

  /** Writes what is still gathered of tensors that were written otherwise, too. */
  async #putRest(fd: number): Promise<void> {
    const { signal } = new AbortController();
    for (const [name, strips] of this.#strips) {
      for (const { columns, bytes } of strips.rest())
        await this.#putPieces(fd, this.layout.entries.get(name)!, columns, bytes, signal);
    }
  }

  *#demandWhole(): Steps<void> {
    const incomplete: string[] = [];
    for (const { name, begin, end } of this.layout.entries.values()) {
      if (end > begin && this.#written.get(name)?.whole !== true) incomplete.push(name);
      yield;
    }
    if (incomplete.length > 0)
      throw this.#misuse('every tensor to be written', `${quoteSome(incomplete)} not or not completely`);
  }

  /** Closes the file as it is, when writes under way are done; the caller removes it. After `finish` it does nothing. */
  async abandon(): Promise<void> {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd === undefined) return;
    await Promise.allSettled([...this.#writes, this.#flush]);
    await closeFile(fd);
  }

  #open(): number {
    if (this.#fd === undefined) throw this.#misuse('the file to be open', 'a call after finish or abandon');
    if (this.#finishing) throw this.#misuse('nothing to begin while finish is under way', 'a call');
    return this.#fd;
  }

  /** Notes bytes of a tensor as written, before they are. */
  #claim(entry: TensorEntry, claim: (written: Written) => Refused | undefined): void {
    const size = entry.end - entry.begin;
    let written = this.#written.get(entry.name);
    if (written === undefined) this.#written.set(entry.name, (written = new Written(size)));
    const refused = claim(written);
    if (refused === undefined) return;
    const place = `bytes ${refused.begin} to ${refused.end} of tensor ${quoteSome([entry.name])}`;
    if (refused.why === 'outside') throw this.#misuse(`bytes from 0 to ${size}`, place);
    throw this.#misuse('every byte to be written once', `${place} again`);
  }

  #misuse(expected: string, got: string): HqqError {
    return new HqqError('ERR_INVALID_ARGUMENT', `${plain(basename(this.path))}: Expected ${expected}, got ${got}.`);
  }
}
