import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { unlink } from 'node:fs/promises';
import { join } from 'node:path';
import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { closeFile, createFile, readFully, readFullySync, withPath, writeFully } from '../../files/io.js';

/**
 * A model of which some tensors have other numbers, which lie in a file of their own until it is closed. The file has no name, save on
 * Windows: whatever ends the process, the system takes its bytes back.
 */
export class Overlaid implements TensorSource {
  readonly #under: TensorSource;
  readonly #path: string;
  readonly #fd: number;
  readonly #places = new Map<string, number>();
  #end = 0;
  readonly #remove = () => rmSync(this.#path, { force: true });

  private constructor(under: TensorSource, path: string, fd: number) {
    this.#under = under;
    this.#path = path;
    this.#fd = fd;
    process.once('exit', this.#remove);
  }

  /** @param folder where the file is to lie @throws {HqqError} `ERR_IO` */
  static async over(under: TensorSource, folder: string): Promise<Overlaid> {
    const path = join(folder, `.hqq-${process.pid}-${randomBytes(6).toString('hex')}.tmp`);
    const overlaid = new Overlaid(under, path, await createFile(path, 0o600, 'wx+'));
    try {
      if (process.platform !== 'win32') await withPath('Cannot remove', path, () => unlink(path));
      return overlaid;
    } catch (error) {
      await overlaid.close();
      throw error;
    }
  }

  /** Puts other bytes in the place of a tensor's. */
  async put({ name }: TensorEntry, bytes: Uint8Array): Promise<void> {
    await writeFully(this.#fd, this.#path, this.#end, bytes);
    this.#places.set(name, this.#end);
    this.#end += bytes.byteLength;
  }

  get container(): string {
    return this.#under.container;
  }

  get path(): string {
    return this.#under.path;
  }

  get kind(): TensorSource['kind'] {
    return this.#under.kind;
  }

  get files(): TensorSource['files'] {
    return this.#under.files;
  }

  get entries(): TensorSource['entries'] {
    return this.#under.entries;
  }

  get envelope(): TensorSource['envelope'] {
    return this.#under.envelope;
  }

  async read(entry: TensorEntry, at: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    const place = this.#places.get(entry.name);
    if (place === undefined) return this.#under.read(entry, at, into, signal);
    signal?.throwIfAborted();
    await readFully(this.#fd, this.#path, place + at, into);
  }

  readSync(entry: TensorEntry, at: number, into: Uint8Array): void {
    const place = this.#places.get(entry.name);
    if (place === undefined) this.#under.readSync(entry, at, into);
    else readFullySync(this.#fd, this.#path, place + at, into);
  }

  /** What lies in the model itself: only tensors that are carried over are read so, and none of these has other numbers. */
  readSpan(file: string, begin: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#under.readSpan(file, begin, into, signal);
  }

  /** Removes the file. The model under it stays open. */
  async close(): Promise<void> {
    process.removeListener('exit', this.#remove);
    await closeFile(this.#fd);
    this.#remove();
  }
}
