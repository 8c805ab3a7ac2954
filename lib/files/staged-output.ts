import { rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, normalize, resolve, sep } from 'node:path';
import { HqqError } from '../messages/errors.js';
import { plain, quote } from '../messages/text.js';
import {
  closeFile,
  createFile,
  ioError,
  openRegular,
  readFully,
  syncFile,
  syncFolder,
  systemCode,
  withPath,
  writeFully,
} from './io.js';
import {
  checkApart,
  checkParent,
  checkReplaceable,
  clearLeftovers,
  type OutputKind,
  RUN_MARK,
} from './output-rules.js';

export type { OutputKind } from './output-rules.js';

/** Bytes of a copied file that are in memory at once. */
const COPY_BYTES = 1024 * 1024;

/** Tries to put a folder in place while others do the same. Each failure means that another run finished. */
const COMMIT_ATTEMPTS = 5;

/** Outputs of this thread that are being written; global, since the ESM and the CommonJS build may both be loaded. */
const REGISTRY = Symbol.for('hqq.stagedOutputs');
const registry = ((globalThis as Record<symbol, unknown>)[REGISTRY] ??= new Set<string>()) as Set<string>;

export interface StagedOutputOptions {
  /** Replace what stands there: a safetensors file, an empty folder or a model folder. */
  readonly force?: boolean | undefined;
  /** Every file and folder that is read, so that none is harmed. */
  readonly inputs: readonly string[];
}

/**
 * An output that appears whole or not at all. It is written to `<target>.<pid>.partial` beside the target and renamed at the
 * end; a killed run leaves that behind, and the next run for the same target clears it.
 */
export class StagedOutput {
  /** Where it will be. Absolute, links in the parent resolved. */
  readonly target: string;
  readonly kind: OutputKind;
  /** Where to write meanwhile: a file that the caller creates, or a folder that exists. */
  readonly path: string;
  readonly #force: boolean;
  #open = true;

  private constructor(target: string, kind: OutputKind, path: string, force: boolean) {
    this.target = target;
    this.kind = kind;
    this.path = path;
    this.#force = force;
  }

  /**
   * Checks that the output may be written and clears what killed runs left.
   *
   * @throws {HqqError} `ERR_INVALID_OPTION` when the output is, holds or lies inside an input; `ERR_IO` when it exists and
   * `force` is not set or does not suffice, when its parent does not exist or may not be written, or when an input is missing.
   */
  static async begin(target: string, kind: OutputKind, options: StagedOutputOptions): Promise<StagedOutput> {
    const { force = false, inputs } = options;
    const absolute = resolve(target);
    if (target === '' || target.includes('\0') || basename(absolute) === '') {
      throw new HqqError(
        'ERR_INVALID_OPTION',
        `Expected the output to be the path of a ${kind}, got ${quote(target)}.`,
      );
    }
    if (kind === 'file' && (target.endsWith('/') || target.endsWith(sep))) {
      const message = `Expected the output to be a file, as the model is one, got ${quote(target)}`;
      throw new HqqError('ERR_INVALID_OPTION', `${message}, which names a folder. Name a .safetensors file.`);
    }
    const place = join(await checkParent(dirname(absolute)), basename(absolute));
    await checkApart(place, inputs);
    const path = `${place}.${RUN_MARK}.partial`;
    if (registry.has(path)) {
      throw new HqqError('ERR_IO', `${plain(place)} is being written by this process already. Wait for that to end.`);
    }
    registry.add(path);
    try {
      await clearLeftovers(place, (partial) => registry.has(partial) && partial !== path);
      await checkReplaceable(place, kind, force);
      if (kind === 'folder') await withPath('Cannot write to', dirname(place), () => fs.mkdir(path));
      return new StagedOutput(place, kind, path, force);
    } catch (error) {
      registry.delete(path);
      throw error;
    }
  }

  /**
   * Copies a file into the folder, to the disk. Contents only: owner, mode and times are those of a new file.
   *
   * @param relative path inside the folder; sub-folders are created
   */
  async copyFile(from: string, relative: string, signal?: AbortSignal): Promise<void> {
    const source = await openRegular(from);
    try {
      await this.#create(relative, async (fd, path) => {
        const buffer = Buffer.allocUnsafe(Math.min(COPY_BYTES, source.size));
        for (let done = 0; done < source.size; ) {
          const piece = buffer.subarray(0, Math.min(buffer.byteLength, source.size - done));
          await readFully(source.fd, from, done, piece, signal);
          await writeFully(fd, path, done, piece);
          done += piece.byteLength;
        }
      });
    } finally {
      await closeFile(source.fd);
    }
  }

  /** Writes a small file into the folder, to the disk. Text becomes UTF-8. */
  async writeFile(relative: string, data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data, 'utf8') : data;
    await this.#create(relative, (fd, path) => writeFully(fd, path, 0, bytes));
  }

  /**
   * Puts the output in its place. Everything is on the disk before its name is; an old folder is moved aside first and
   * removed last, so that a crash at any point loses neither.
   *
   * @throws {HqqError} `ERR_IO` when it cannot: the target then is as it was, and `abandon` clears the rest.
   */
  async commit(): Promise<void> {
    this.#demandOpen();
    const staged = await withPath('Cannot finish', this.path, () => fs.lstat(this.path));
    if (this.kind === 'file' ? !staged.isFile() : !staged.isDirectory()) {
      throw new HqqError(
        'ERR_IO',
        `Cannot finish ${plain(this.path)}. Expected a ${this.kind} there; something replaced it.`,
      );
    }
    await syncTree(this.path, this.kind);
    await (this.kind === 'file' ? this.#placeFile() : this.#placeFolder());
    this.#open = false;
    registry.delete(this.path);
    await syncFolder(dirname(this.target));
    await fs.rm(this.#aside, { recursive: true, force: true }).catch(() => {}); // The next run tries again.
  }

  /** Removes what was written. After `commit` or a second time it does nothing. Close writers first. */
  async abandon(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await fs.rm(this.path, { recursive: true, force: true, maxRetries: 2 }).catch(() => {}); // The next run tries again.
    registry.delete(this.path);
  }

  /** Blocking twin of `abandon`, for the handler of an exit. */
  abandonSync(): void {
    if (!this.#open) return;
    this.#open = false;
    try {
      rmSync(this.path, { recursive: true, force: true });
    } catch {
      // The next run tries again.
    }
    registry.delete(this.path);
  }

  /** Where an old folder waits while the new one takes its place. */
  get #aside(): string {
    return `${this.target}.${RUN_MARK}.replaced.partial`;
  }

  #demandOpen(): void {
    if (this.#open) return;
    const expected = `Expected ${plain(this.target)} to be unfinished`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${expected}, got a call after commit or abandon.`);
  }

  async #create(relative: string, fill: (fd: number, path: string) => Promise<void>): Promise<void> {
    this.#demandOpen();
    const path = normalize(relative);
    const outside =
      relative === '' || path === '.' || isAbsolute(path) || path.includes('\0') || path.split(sep).includes('..');
    if (this.kind !== 'folder' || outside) {
      throw new HqqError('ERR_INVALID_ARGUMENT', `Expected a path inside the output folder, got ${quote(relative)}.`);
    }
    const full = join(this.path, path);
    await withPath('Cannot create', dirname(full), () => fs.mkdir(dirname(full), { recursive: true }));
    const fd = await createFile(full);
    try {
      await fill(fd, full);
      await syncFile(fd, full);
    } finally {
      await closeFile(fd);
    }
  }

  async #placeFile(): Promise<void> {
    const occupied = await checkReplaceable(this.target, 'file', this.#force, true);
    if (this.#force || occupied)
      return withPath('Cannot put in place', this.target, () => fs.rename(this.path, this.target));
    try {
      // Unlike a rename, a link never replaces what appears in this moment.
      await fs.link(this.path, this.target);
    } catch (error) {
      if (systemCode(error) === 'EEXIST') await checkReplaceable(this.target, 'file', false, true);
      // No hard links on this file system.
      return withPath('Cannot put in place', this.target, () => fs.rename(this.path, this.target));
    }
    await fs.rm(this.path, { force: true }).catch(() => {});
  }

  async #placeFolder(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      const occupied = await checkReplaceable(this.target, 'folder', this.#force, true);
      try {
        if (occupied) {
          // From an attempt before: another run has replaced it since, as this one meant to.
          await fs.rm(this.#aside, { recursive: true, force: true });
          await fs.rename(this.target, this.#aside);
        }
      } catch (error) {
        if (systemCode(error) !== 'ENOENT') throw ioError('Cannot move aside', this.target, error);
      }
      try {
        return await fs.rename(this.path, this.target);
      } catch (error) {
        const raced = ['ENOTEMPTY', 'EEXIST', 'ENOTDIR'].includes(systemCode(error) ?? '');
        if (raced && attempt < COMMIT_ATTEMPTS) continue;
        if (!raced) await this.#putBack();
        throw ioError('Cannot put in place', this.target, error);
      }
    }
  }

  /** The old folder, if there was one, goes back. */
  async #putBack(): Promise<void> {
    try {
      await fs.rename(this.#aside, this.target);
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return;
      const message = `Cannot put ${plain(this.target)} back. The old folder is ${plain(this.#aside)}; rename it by hand.`;
      throw new HqqError('ERR_IO', message, { cause: error });
    }
  }
}

/** Waits until a file, or a folder with all that is in it, is on the disk. Cheap for what is there already. */
async function syncTree(path: string, kind: OutputKind): Promise<void> {
  if (kind === 'file') {
    const file = await withPath('Cannot write', path, () => fs.open(path, 'r+'));
    try {
      await syncFile(file.fd, path);
    } finally {
      await file.close();
    }
    return;
  }
  for (const entry of await withPath('Cannot list', path, () => fs.readdir(path, { withFileTypes: true }))) {
    await syncTree(join(path, entry.name), entry.isDirectory() ? 'folder' : 'file');
  }
  await syncFolder(path);
}
