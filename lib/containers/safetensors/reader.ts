import * as fs from 'node:fs';
import { basename } from 'node:path';
import { inTurns } from '../../files/event-loop.js';
import { closeFile, openRegular, readFully, readFullySync } from '../../files/io.js';
import { HqqError } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import type { SourceFile, TensorEntry } from '../container.js';
import { type Header, headerLength, headerSteps, LENGTH_BYTES } from './header.js';

/**
 * One safetensors file, open, its header checked: every entry lies inside the file. Any number of reads may run at once.
 * The file is closed by `close`, never by the garbage collector.
 */
export class SafetensorsFile implements SourceFile {
  /** As it was opened. */
  readonly path: string;
  /** Last part of `path`. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** In the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** `__metadata__`; empty without one. */
  readonly metadata: ReadonlyMap<string, string>;
  #fd: number | undefined;
  /** Reads under way. A descriptor that is closed under a read may be another file's by the time it runs. */
  readonly #reads = new Set<Promise<void>>();

  private constructor(path: string, fd: number, size: number, header: Header) {
    this.path = path;
    this.name = basename(path);
    this.size = size;
    this.tensors = header.tensors;
    this.metadata = header.metadata;
    this.#fd = fd;
  }

  /**
   * @throws {HqqError} `ERR_IO` for what cannot be opened or is not a regular file, `ERR_CHECKPOINT_FORMAT` for a header that
   * breaks the format or does not fit the file.
   */
  static async open(path: string): Promise<SafetensorsFile> {
    const { fd, size } = await openRegular(path);
    try {
      const source = { file: basename(path), path, fileSize: size };
      const prefix = Buffer.alloc(Math.min(LENGTH_BYTES, size));
      await readFully(fd, path, 0, prefix);
      const json = Buffer.allocUnsafe(headerLength(prefix, source));
      await readFully(fd, path, LENGTH_BYTES, json);
      return new SafetensorsFile(path, fd, size, await inTurns(headerSteps(json, source)));
    } catch (error) {
      await closeFile(fd);
      throw error;
    }
  }

  /**
   * Fills `into` with the bytes from `position`. `into` may be touched until the promise settles; an abort is noticed
   * between pieces of 4 MiB.
   *
   * @throws {HqqError} `ERR_CHECKPOINT_FORMAT` when the file became shorter, `ERR_IO` when the system cannot read; the
   * signal's reason when aborted.
   */
  async read(position: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
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
