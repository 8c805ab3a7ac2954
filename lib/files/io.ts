import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { HqqError } from '../messages/errors.js';
import { formatError, plain } from '../messages/text.js';
import { formatBytes } from '../messages/units.js';

/** Bytes per system call: small enough that an abort is noticed within milliseconds, large enough to cost nothing. */
const CHUNK_BYTES = 4 * 1024 * 1024;

const open = promisify(fs.open);
const fstat = promisify(fs.fstat);
const fsync = promisify(fs.fsync);
const close = promisify(fs.close);
const write = promisify(fs.write);
const read = promisify(fs.read);

/** What to do about a system error, by its code. */
const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: 'It does not exist. Check the path.',
  ENOTDIR: 'A part of the path is a file, not a folder. Check the path.',
  EACCES: 'Permission is denied. Check who may read and write there.',
  EPERM: 'Permission is denied. Check who may read and write there.',
  ERR_ACCESS_DENIED:
    'Node.js was started with --permission, and may not do this: --allow-fs-read and --allow-fs-write say where it may.',
  EROFS: 'The file system is read-only. Choose another place.',
  ENOSPC: 'The disk is full. Free space there or choose another place.',
  EDQUOT: 'Your disk quota is used up. Free space there or choose another place.',
  EFBIG: 'The file system does not hold files of this size. Choose another place.',
  EMFILE: 'Too many files are open. Raise the limit (ulimit -n).',
  ENFILE: 'Too many files are open on this system.',
  ELOOP: 'Its symbolic links lead in a circle.',
  ENAMETOOLONG: 'The name is too long. Choose a shorter one.',
  EEXIST: 'It exists already.',
  ENOTEMPTY: 'The folder is not empty.',
  EIO: 'The disk reports an error.',
};

export function systemCode(error: unknown): string | undefined {
  const code = (error as { readonly code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : undefined;
}

/** The error for a system call that failed: `doing` as in "Cannot read". Errors of this package and aborts pass through. */
export function ioError(doing: string, path: string, error: unknown): unknown {
  const code = systemCode(error);
  if (error instanceof HqqError || code === undefined || (error as Error).name === 'AbortError') return error;
  const advice = ADVICE[code] ?? `The system says: ${plain(code)}.`;
  return new HqqError('ERR_IO', `${doing} ${plain(path)}. ${advice}`, { cause: error });
}

/** The error for a file or folder that could not be made at `path` for the output at `target`, which is the name that the user knows. */
export function creationError(target: string, error: unknown): unknown {
  if (systemCode(error) !== 'ENOENT') return ioError('Cannot create', target, error);
  const message = `Cannot create ${plain(target)}. Nothing can be created in ${plain(dirname(target))}. Choose another place.`;
  return new HqqError('ERR_IO', message, { cause: error });
}

/** Runs `action`; what it throws becomes an `ERR_IO` that names the path. */
export async function withPath<T>(doing: string, path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw ioError(doing, path, error);
  }
}

/** What stands at `path` itself (links are not followed); undefined for nothing. */
export async function standing(path: string): Promise<fs.Stats | undefined> {
  try {
    return await fs.promises.lstat(path);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw ioError('Cannot look at', path, error);
  }
}

/** What `path` is when it is not a regular file. */
export function kindOf(stat: fs.Stats): string {
  if (stat.isDirectory()) return 'a folder';
  if (stat.isSymbolicLink()) return 'a symbolic link';
  if (stat.isFIFO()) return 'a named pipe';
  if (stat.isSocket()) return 'a socket';
  return stat.isFile() ? 'a file' : 'a device';
}

/**
 * Opens a regular file to read. Asks before it opens, since opening a pipe waits and opening a device may act; then again,
 * since the path may have changed in between.
 */
export async function openRegular(
  path: string,
): Promise<{ readonly fd: number; readonly size: number; readonly mode: number }> {
  return withPath('Cannot read', path, async () => {
    const check = (stat: fs.Stats) => {
      if (!stat.isFile())
        throw new HqqError('ERR_IO', `Cannot read ${plain(path)}. Expected a file, got ${kindOf(stat)}.`);
      return stat;
    };
    check(await fs.promises.stat(path));
    const fd = await open(path, fs.constants.O_RDONLY | (fs.constants.O_NONBLOCK ?? 0));
    try {
      const { size, mode } = check(await fstat(fd));
      return { fd, size, mode };
    } catch (error) {
      await close(fd);
      throw error;
    }
  });
}

/** A page: so few bytes are read and written by blocking calls, a few microseconds each. To wait for a thread takes ten times as long, and tensors may be many. */
export const PAGE_BYTES = 4096;

/** Fills `into` from `position`. A file that ends before is an error: it shrank after it was checked. */
export async function readFully(
  fd: number,
  path: string,
  position: number,
  into: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  for (let done = 0; done < into.byteLength; ) {
    signal?.throwIfAborted();
    const length = Math.min(CHUNK_BYTES, into.byteLength - done);
    const start = done;
    const { bytesRead } = await withPath('Cannot read', path, () => read(fd, into, start, length, position + start));
    if (bytesRead === 0) throw shrunk(path, position + done, into.byteLength - done);
    done += bytesRead;
  }
}

export function readFullySync(fd: number, path: string, position: number, into: Uint8Array): void {
  for (let done = 0; done < into.byteLength; ) {
    const length = Math.min(CHUNK_BYTES, into.byteLength - done);
    let count: number;
    try {
      count = fs.readSync(fd, into, done, length, position + done);
    } catch (error) {
      throw ioError('Cannot read', path, error);
    }
    if (count === 0) throw shrunk(path, position + done, into.byteLength - done);
    done += count;
  }
}

function shrunk(path: string, position: number, missing: number): HqqError {
  return formatError(
    path,
    `the file ends at byte ${position}, ${missing} bytes too early. It became shorter while it was read.`,
  );
}

/** A small file as a whole. `limit` bounds what a hostile one can cost. */
export async function readWhole(path: string, limit: number): Promise<Buffer> {
  const { fd, size } = await openRegular(path);
  try {
    if (size > limit) throw formatError(path, `the file has ${size} bytes; at most ${limit} are read.`);
    const bytes = Buffer.allocUnsafe(size);
    await readFully(fd, path, 0, bytes);
    return bytes;
  } finally {
    await close(fd);
  }
}

/** A new file, open to write, or to write and read. The umask takes from `mode` what it takes. */
export async function createFile(path: string, mode = 0o666, flags: 'wx' | 'wx+' = 'wx'): Promise<number> {
  return withPath('Cannot create', path, () => open(path, flags, mode));
}

/** Writes all of `bytes` at `position`. */
export async function writeFully(fd: number, path: string, position: number, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const start = done;
    const rest = bytes.byteLength - start;
    const { bytesWritten } = await withPath('Cannot write', path, () =>
      write(fd, bytes, start, rest, position + start),
    );
    done += bytesWritten;
  }
}

/** Writes bytes `begin` to `end` of `bytes`: a view of them for each of thousands of calls would be more work than the calls. */
export function writeFullySync(
  fd: number,
  path: string,
  position: number,
  bytes: Uint8Array,
  begin = 0,
  end = bytes.byteLength,
): void {
  for (let done = begin; done < end; ) {
    try {
      done += fs.writeSync(fd, bytes, done, end - done, position + done - begin);
    } catch (error) {
      throw ioError('Cannot write', path, error);
    }
  }
}

/** What fsync fails with where Node.js runs with --permission, which has it for no file at all, also not for one that may be written. */
const NO_SYNC = 'ERR_ACCESS_DENIED';

/** Waits until the bytes of a file are on the disk, where Node.js may. */
export async function syncFile(fd: number, path: string): Promise<void> {
  try {
    await fsync(fd);
  } catch (error) {
    if (systemCode(error) !== NO_SYNC) throw ioError('Cannot write', path, error);
  }
}

export async function closeFile(fd: number): Promise<void> {
  await close(fd);
}

/** What file systems that cannot sync a folder answer: some network ones, and Windows. */
const NO_FOLDER_SYNC: ReadonlySet<string | undefined> = new Set([
  'EINVAL',
  'ENOTSUP',
  'EOPNOTSUPP',
  'ENOSYS',
  NO_SYNC,
  ...(process.platform === 'win32' ? ['EPERM', 'EISDIR', 'EACCES'] : []),
]);

/** Waits until the names in a folder are on the disk, where the file system can. */
export async function syncFolder(path: string): Promise<void> {
  try {
    const fd = await open(path, 'r');
    try {
      await fsync(fd);
    } finally {
      await close(fd);
    }
  } catch (error) {
    if (!NO_FOLDER_SYNC.has(systemCode(error))) throw ioError('Cannot write', path, error);
  }
}

/** Throws when the disk of `folder` has fewer than `bytes` free: better now than after hours of work. */
export async function ensureFreeSpace(
  folder: string,
  bytes: number,
  place?: { notes(): Promise<readonly string[]> },
): Promise<void> {
  let free: number;
  try {
    const { bavail, blocks, bsize } = await fs.promises.statfs(folder);
    if (blocks === 0) return; // A file system that does not count.
    free = bavail * bsize;
  } catch {
    return; // Nothing is known; writing will tell.
  }
  if (free >= bytes) return;
  const message = `The output needs ${formatBytes(bytes)}, ${plain(folder)} has ${formatBytes(free)} free`;
  const advice = ['Free space there or choose another place.', ...((await place?.notes()) ?? [])].join(' ');
  throw new HqqError('ERR_IO', `${message}. ${advice}`);
}
