import * as fs from 'node:fs';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { yieldIfDue } from './event-loop.js';
import { closeFile, PAGE_BYTES, readFully, readFullySync } from './io.js';

/** A file that is open to be read. Any number of reads may run at once. It is closed by `close`, never by the garbage collector. */
export class OpenFile {
  /** As it was opened. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  #fd: number | undefined;
  /** Reads under way. A descriptor that is closed under a read may be another file's by the time it runs. */
  readonly #reads = new Set<Promise<void>>();

  constructor(path: string, fd: number, size: number) {
    this.path = path;
    this.size = size;
    this.#fd = fd;
  }

  /**
   * Fills `into` with the bytes from `position`. `into` may be touched until the promise settles; an abort is noticed
   * between pieces of 4 MiB.
   *
   * @throws {HqqError} `ERR_CHECKPOINT_FORMAT` when the file became shorter, `ERR_IO` when the system cannot read; the
   * signal's reason when aborted.
   */
  async read(position: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (into.byteLength <= PAGE_BYTES) {
      signal?.throwIfAborted();
      this.readSync(position, into);
      return yieldIfDue();
    }
    const reading = readFully(this.#open(), this.path, position, into, signal);
    this.#reads.add(reading);
    try {
      await reading;
    } finally {
      this.#reads.delete(reading);
    }
  }

  /** Blocking twin of `read`. */
  readSync(position: number, into: Uint8Array): void {
    readFullySync(this.#open(), this.path, position, into);
  }

  /** Closes the file when the reads under way are done. Closing twice is fine; reading afterwards is an error. */
  async close(): Promise<void> {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd === undefined) return;
    await Promise.allSettled(this.#reads);
    await closeFile(fd);
  }

  /** Blocking twin of `close`; with reads under way the file is closed when they are done. */
  closeSync(): void {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd === undefined) return;
    if (this.#reads.size === 0) fs.closeSync(fd);
    else void Promise.allSettled(this.#reads).then(() => fs.closeSync(fd));
  }

  #open(): number {
    if (this.#fd !== undefined) return this.#fd;
    throw new HqqError('ERR_CLOSED', `Expected ${plain(this.path)} to be open, got a read after close.`);
  }
}
