import { rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, normalize, resolve, sep } from 'node:path';
import { HqqError } from '../messages/errors.js';
import { plain, quote } from '../messages/text.js';
import { placeFiles, settleBesideSync } from './beside.js';
import type { FileKind } from './file-kind.js';
import {
  closeFile,
  createFile,
  creationError,
  openRegular,
  readFully,
  syncFile,
  syncFolder,
  systemCode,
  withPath,
  writeFully,
} from './io.js';
import { asideOf, clearLeftovers, type Left, noteOf, partialOf } from './leftovers.js';
import { enterable, modeAt, modeLike, ownable } from './modes.js';
import { isOpen, register, release } from './open-outputs.js';
import { checkApart, checkReplaceable, type OutputKind } from './output-rules.js';
import { checkParent, makeParents, removeParents, removeParentsSync } from './parents.js';
import { placeFolder, settleAsideSync, syncTree } from './placing.js';

export type { OutputKind } from './output-rules.js';

/** Bytes of a copied file that are in memory at once. */
const COPY_BYTES = 1024 * 1024;

interface StagedOutputOptions {
  /** What the output's files are: the container that writes them. */
  readonly made: FileKind;
  /** Replace what stands there: an empty file or one of this kind, an empty folder or a model folder. */
  readonly force?: boolean | undefined;
  /** Every file and folder that is read, so that none is harmed. */
  readonly inputs: readonly string[];
  /**
   * The file or folder whose modes the output takes, file by file: what only its owner may read must not become readable to
   * all. By default modes are those of new files.
   */
  readonly like?: string | undefined;
}

/**
 * An output that appears whole or not at all. It is written to `<target>.<run>.partial` (`partialOf`) beside the target and renamed at the
 * end. A process that ends before that removes it; one that is killed leaves it behind, and the next run for the same target
 * clears it.
 */
export class StagedOutput {
  /** Where it will be. Absolute, links in the parent resolved. */
  readonly target: string;
  readonly kind: OutputKind;
  /** Where to write meanwhile: a file that the caller creates, or a folder that exists. */
  readonly path: string;
  readonly #made: FileKind;
  /** What follows the output's name in that of a file that belongs to it. */
  readonly #beside: string | undefined;
  readonly #force: boolean;
  readonly #like: string | undefined;
  /** Folders above the output that were made for it, the deepest first. */
  readonly #parents: string[] = [];
  /** Half-written outputs of other runs that stay beside it. */
  #left: readonly Left[] = [];
  /** Whether the caller may still write to it. */
  #open = true;
  /** Whether something of it may be on the disk that is not to stay. */
  #unsettled = true;

  private constructor(
    target: string,
    kind: OutputKind,
    path: string,
    { made, force = false, like }: StagedOutputOptions,
  ) {
    this.target = target;
    this.kind = kind;
    this.path = path;
    this.#made = made;
    this.#beside = kind === 'file' ? made.beside : undefined;
    this.#force = force;
    this.#like = like;
  }

  /**
   * Checks that the output may be written, makes the folders above it that are missing, and clears what killed runs left.
   *
   * @throws {HqqError} `ERR_INVALID_OPTION` when the output is, holds or lies inside an input; `ERR_IO` when it exists and
   * `force` is not set or does not suffice, when its parent cannot be made or written to, or when an input is missing.
   */
  static async begin(target: string, kind: OutputKind, options: StagedOutputOptions): Promise<StagedOutput> {
    const { made, force = false, inputs } = options;
    const absolute = resolve(target);
    if (target === '' || target.includes('\0') || basename(absolute) === '') {
      throw new HqqError(
        'ERR_INVALID_OPTION',
        `Expected the output to be the path of a ${kind}, got ${quote(target)}.`,
      );
    }
    if (kind === 'file' && (target.endsWith('/') || target.endsWith(sep))) {
      const message = `Expected the output to be a file, as the model is one, got ${quote(target)}`;
      throw new HqqError('ERR_INVALID_OPTION', `${message}, which names a folder. Name a ${made.ending} file.`);
    }
    const place = join(await checkParent(dirname(absolute)), basename(absolute));
    const beside = kind === 'file' ? made.beside : undefined;
    await checkApart(place, inputs, beside);
    const path = partialOf(place);
    if (isOpen(path)) {
      throw new HqqError('ERR_IO', `${plain(place)} is being written by this process already. Wait for that to end.`);
    }
    const staged = new StagedOutput(place, kind, path, options);
    register(path, () => staged.abandonSync());
    try {
      await makeParents(dirname(place), staged.#parents);
      staged.#left = await clearLeftovers(place, (partial) => isOpen(partial) && partial !== path, beside);
      await checkReplaceable(place, kind, made, force);
      await staged.#claim();
      return staged;
    } catch (error) {
      await staged.abandon();
      throw error;
    }
  }

  /** What users should know of what other runs left beside it: nothing, or one note. */
  async notes(): Promise<readonly string[]> {
    const note = await noteOf(this.#left);
    return note === undefined ? [] : [note];
  }

  /**
   * Mode for a file that the caller creates: that of the file of this name in what the output is like, and always one that
   * its owner can read and write.
   *
   * @param relative path inside the folder; '.' where the output is a file
   */
  async modeOf(relative: string): Promise<number> {
    return this.#like === undefined ? 0o666 : modeLike(this.#like, relative);
  }

  /**
   * Copies a file into the folder, to the disk. Contents and mode only: owner and times are those of a new file.
   *
   * @param relative path inside the folder; sub-folders are created
   */
  async copyFile(from: string, relative: string, signal?: AbortSignal): Promise<void> {
    const source = await openRegular(from);
    try {
      await this.#create(relative, ownable(source.mode), async (fd, path) => {
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

  /** Makes the folders that a file in the folder lies in, which the caller creates. */
  async makeFoldersOf(relative: string): Promise<void> {
    for (let end = relative.indexOf('/'); end >= 0; end = relative.indexOf('/', end + 1))
      await this.#makeFolder(relative.slice(0, end));
  }

  /** Writes a small file into the folder, to the disk. Text becomes UTF-8. */
  async writeFile(relative: string, data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data, 'utf8') : data;
    await this.#create(relative, undefined, (fd, path) => writeFully(fd, path, 0, bytes));
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
      const message = `Cannot finish ${plain(this.path)}. Expected a ${this.kind} there; something replaced it.`;
      throw new HqqError('ERR_IO', message);
    }
    await syncTree(this.path, this.kind);
    const { path, target } = this;
    const placement = { path, target, aside: this.#aside, made: this.#made, force: this.#force };
    await (this.kind === 'file' ? placeFiles(placement, this.#beside) : placeFolder(placement));
    this.#open = false;
    try {
      for (const folder of [target, ...this.#parents]) await syncFolder(dirname(folder));
      await fs.rm(this.#aside, { recursive: true, force: true }).catch(() => {}); // The next run tries again.
    } finally {
      this.#settle();
    }
  }

  /** Removes what was written. After `commit` or a second time it does nothing. Close writers first. */
  async abandon(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await fs.rm(this.path, { recursive: true, force: true, maxRetries: 2 }).catch(() => {}); // The next run tries again.
    if (this.#beside !== undefined) await fs.rm(this.path + this.#beside, { force: true }).catch(() => {});
    await removeParents(this.#parents);
    this.#settle();
  }

  /** Blocking twin of `abandon`, for the end of the process: does the rest where `abandon` or `commit` is under way. */
  abandonSync(): void {
    if (!this.#unsettled) return;
    this.#open = false;
    const { path, target } = this;
    const steps = [
      () => this.#beside !== undefined && settleBesideSync({ path, target, aside: this.#aside }, this.#beside),
      () => settleAsideSync({ target, aside: this.#aside }),
      () => rmSync(path, { recursive: true, force: true, maxRetries: 2 }),
      () => removeParentsSync(this.#parents),
    ];
    for (const step of steps) {
      try {
        step();
      } catch {
        // The next run tries again.
      }
    }
    this.#settle();
  }

  #settle(): void {
    this.#unsettled = false;
    release(this.path);
  }

  /** Where an old folder waits while the new one takes its place. */
  get #aside(): string {
    return asideOf(this.target);
  }

  #demandOpen(): void {
    if (this.#open) return;
    const message = `Expected ${plain(this.target)} to be unfinished, got a call after commit or abandon.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', message);
  }

  async #create(
    relative: string,
    mode: number | undefined,
    fill: (fd: number, path: string) => Promise<void>,
  ): Promise<void> {
    this.#demandOpen();
    const path = normalize(relative);
    const outside = /^\.?$|\0/.test(path) || relative === '' || isAbsolute(path) || path.split(sep).includes('..');
    if (this.kind !== 'folder' || outside) {
      throw new HqqError('ERR_INVALID_ARGUMENT', `Expected a path inside the output folder, got ${quote(relative)}.`);
    }
    const full = join(this.path, path);
    await this.makeFoldersOf(path.split(sep).join('/'));
    const fd = await createFile(full, mode ?? (await this.modeOf(path)));
    try {
      await fill(fd, full);
      await syncFile(fd, full);
    } finally {
      await closeFile(fd);
    }
  }

  /** Makes the staged folder, or tries whether the file can be made: better now than after the work. */
  async #claim(): Promise<void> {
    try {
      if (this.kind === 'folder') await this.#makeFolder('.');
      else {
        await (await fs.open(this.path, 'wx', 0o600)).close();
        await fs.rm(this.path);
      }
    } catch (error) {
      throw creationError(this.target, error instanceof HqqError ? error.cause : error);
    }
  }

  /** Makes the staged folder ('.'), or one inside of it that may be there. */
  async #makeFolder(relative: string): Promise<void> {
    const path = join(this.path, relative);
    const mode = this.#like === undefined ? undefined : await modeAt(join(this.#like, relative));
    await withPath('Cannot create', path, async () => {
      try {
        await fs.mkdir(path, mode === undefined ? 0o777 : enterable(mode & 0o777));
      } catch (error) {
        if (relative === '.' || systemCode(error) !== 'EEXIST') throw error;
      }
    });
  }
}
