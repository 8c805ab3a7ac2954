import { bytesOf } from '../compute/floats.js';
import { closeFile, createFile, openRegular, readFully, syncFile, writeFully } from '../files/io.js';

/** What flows between two blocks: rows of all texts, one after the other, in a file. In memory is what is asked for. */
export class Stream {
  readonly #path: string;
  readonly #fd: number;
  readonly #width: number;

  private constructor(path: string, fd: number, width: number) {
    this.#path = path;
    this.#fd = fd;
    this.#width = width;
  }

  /** A new one. @param width numbers of a row @throws {HqqError} `ERR_IO` */
  static async create(path: string, width: number): Promise<Stream> {
    return new Stream(path, await createFile(path, 0o600, 'wx+'), width);
  }

  /** One that was finished. @throws {HqqError} `ERR_IO` */
  static async open(path: string, width: number): Promise<Stream> {
    return new Stream(path, (await openRegular(path)).fd, width);
  }

  /** Fills `into` with rows from `first` on. */
  async read(first: number, into: Float32Array, signal?: AbortSignal): Promise<void> {
    await readFully(this.#fd, this.#path, first * this.#width * Float32Array.BYTES_PER_ELEMENT, bytesOf(into), signal);
  }

  /** Puts rows where they belong, from `first` on. */
  async write(first: number, rows: Float32Array): Promise<void> {
    await writeFully(this.#fd, this.#path, first * this.#width * Float32Array.BYTES_PER_ELEMENT, bytesOf(rows));
  }

  /** Waits until all is on the disk. */
  async sync(): Promise<void> {
    await syncFile(this.#fd, this.#path);
  }

  async close(): Promise<void> {
    await closeFile(this.#fd);
  }
}
