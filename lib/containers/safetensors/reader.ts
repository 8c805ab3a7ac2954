import { basename } from 'node:path';
import { inTurns } from '../../files/event-loop.js';
import { closeFile, openRegular, readFully } from '../../files/io.js';
import { OpenFile } from '../../files/open-file.js';
import type { SourceFile, TensorEntry } from '../container.js';
import { type Header, headerLength, headerSteps, LENGTH_BYTES } from './header.js';

/** One safetensors file, open, its header checked: every entry lies inside the file. */
export class SafetensorsFile extends OpenFile implements SourceFile {
  /** Last part of `path`. */
  readonly name: string;
  /** In the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** `__metadata__`; empty without one. */
  readonly metadata: ReadonlyMap<string, string>;

  private constructor(path: string, fd: number, size: number, header: Header) {
    super(path, fd, size);
    this.name = basename(path);
    this.tensors = header.tensors;
    this.metadata = header.metadata;
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
}
