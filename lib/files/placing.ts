import { existsSync, renameSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import type { FileKind } from './file-kind.js';
import { ioError, syncFile, syncFolder, systemCode, withPath } from './io.js';
import { checkReplaceable, type OutputKind } from './output-rules.js';

/** Tries to put a folder in place while others do the same. Each failure means that another run finished. */
const COMMIT_ATTEMPTS = 5;

/** An output that is written, and where it goes. */
export interface Placement {
  /** Where it was written. */
  readonly path: string;
  readonly target: string;
  /** Where an old folder waits while the new one takes its place. */
  readonly aside: string;
  /** What the output's files are. */
  readonly made: FileKind;
  /** Replace what stands there. */
  readonly force: boolean;
}

/** Puts a file in its place. */
export async function placeFile({ path, target, made, force }: Placement): Promise<void> {
  const occupied = await checkReplaceable(target, 'file', made, force, true);
  if (force || occupied) return withPath('Cannot put in place', target, () => fs.rename(path, target));
  try {
    // Unlike a rename, a link never replaces what appears in this moment.
    await fs.link(path, target);
  } catch (error) {
    if (systemCode(error) === 'EEXIST') await checkReplaceable(target, 'file', made, false, true);
    // No hard links on this file system.
    return withPath('Cannot put in place', target, () => fs.rename(path, target));
  }
  await fs.rm(path, { force: true }).catch(() => {});
}

/** Puts a folder in its place; one that stood there is moved aside, for the caller to remove. */
export async function placeFolder(placement: Placement): Promise<void> {
  const { path, target, aside, made, force } = placement;
  for (let attempt = 1; ; attempt++) {
    const occupied = await checkReplaceable(target, 'folder', made, force, true);
    try {
      if (occupied) {
        // From an attempt before: another run has replaced it since, as this one meant to.
        await fs.rm(aside, { recursive: true, force: true });
        await fs.rename(target, aside);
      }
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw ioError('Cannot move aside', target, error);
    }
    try {
      return await fs.rename(path, target);
    } catch (error) {
      const raced = ['ENOTEMPTY', 'EEXIST', 'ENOTDIR'].includes(systemCode(error) ?? '');
      if (raced && attempt < COMMIT_ATTEMPTS) continue;
      if (!raced) await putBack(placement);
      throw ioError('Cannot put in place', target, error);
    }
  }
}

/** The old folder, if there was one, goes back. */
async function putBack({ target, aside }: Placement): Promise<void> {
  try {
    await fs.rename(aside, target);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return;
    const message = `Cannot put ${plain(target)} back. The old folder is ${plain(aside)}; rename it by hand.`;
    throw new HqqError('ERR_IO', message, { cause: error });
  }
}

/** Where the process ends before an old folder that is aside was removed: it goes back if nothing took its place. */
export function settleAsideSync({ target, aside }: Pick<Placement, 'target' | 'aside'>): void {
  if (!existsSync(aside)) return;
  if (existsSync(target)) rmSync(aside, { recursive: true, force: true });
  else renameSync(aside, target);
}

/** Waits until a file, or a folder with all that is in it, is on the disk. Cheap for what is there already. */
export async function syncTree(path: string, kind: OutputKind): Promise<void> {
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
