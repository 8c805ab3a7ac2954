import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { dirname } from 'node:path';
import { closeFile, createFile, syncFile, syncFolder, systemCode, withPath, writeFully } from '../files/io.js';

// Files that appear whole or not at all, on a disk that others look at and write to as well.

/** A name beside `path` that nobody else writes to. */
export const besideOf = (path: string): string => `${path}.${randomBytes(6).toString('hex')}.partial`;

/** Writes a file through another name. What is there already is replaced. */
export async function writeWhole(path: string, data: string): Promise<void> {
  const partial = besideOf(path);
  const fd = await createFile(partial);
  try {
    await writeFully(fd, partial, 0, Buffer.from(data));
    await syncFile(fd, partial);
  } finally {
    await closeFile(fd);
  }
  await putInPlace(partial, path);
}

/** The same for a value, as JSON. */
export const writeJson = (path: string, value: unknown): Promise<void> =>
  writeWhole(path, `${JSON.stringify(value)}\n`);

/** Gives a file that is on the disk its name. What had it is replaced. */
export async function putInPlace(partial: string, path: string): Promise<void> {
  try {
    await withPath('Cannot put in place', path, () => fs.rename(partial, path));
  } catch (error) {
    await fs.rm(partial, { force: true }).catch(() => {});
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Whether something stands at `path`. What cannot be told is an error. */
export async function isThere(path: string): Promise<boolean> {
  return withPath('Cannot look at', path, async () => {
    try {
      await fs.access(path);
      return true;
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return false;
      throw error;
    }
  });
}

/**
 * Names in a folder; none where it is gone. On a disk that comes from elsewhere, opening a folder asks what is in it, where looking for a
 * name may be answered with what was so a minute ago.
 */
export async function namesIn(folder: string): Promise<ReadonlySet<string>> {
  return withPath('Cannot list', folder, async () => {
    try {
      return new Set(await fs.readdir(folder));
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return new Set<string>();
      throw error;
    }
  });
}
