import { type BigIntStats, renameSync, rmSync, statSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { basename } from 'node:path';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { standing, systemCode, withPath } from './io.js';
import { checkReplaceable } from './output-rules.js';
import { type Placement, placeFile, syncTree } from './placing.js';

// The file that belongs to one and lies beside it: tensors of a model. Both are replaced, or none.

/** Bytes of a file that are searched at once. */
const CHUNK_BYTES = 1024 * 1024;

/** Puts a file in its place, and with it the one beside it, where there is one. Where that fails, both are as they were. */
export async function placeFiles(placement: Placement, beside: string | undefined): Promise<void> {
  if (beside === undefined) return placeFile(placement);
  const { path, target, aside, made, force } = placement;
  const [from, to, old] = [path + beside, target + beside, aside + beside];
  await checkReplaceable(target, 'file', made, force, true);
  if ((await standing(from)) === undefined) {
    const stale = force && (await standing(to)) !== undefined && (await mentions(target, basename(to)));
    await placeFile(placement);
    if (stale) await fs.rm(to, { force: true }).catch(() => {});
    return;
  }
  await syncTree(from, 'file');
  // First the one beside, since without it the other would be none.
  if (force) await moveAside(to, old);
  let placed = false;
  try {
    await withPath('Cannot put in place', to, () => linkOrRename(from, to));
    placed = true;
    await placeFile({ ...placement, made: { ...made, beside: undefined } });
  } catch (error) {
    if (placed && (await standing(from)) === undefined) await fs.rename(to, from).catch(() => {});
    else if (placed) await fs.rm(to, { force: true }).catch(() => {});
    await putBack(old, to);
    throw error;
  }
  for (const path of [from, old]) await fs.rm(path, { force: true }).catch(() => {}); // The next run tries again.
}

/**
 * Until the other file is in its place, too, this one has two names, by which the next run knows what a killed one put there. File systems
 * without hard links have but one.
 */
async function linkOrRename(from: string, to: string): Promise<void> {
  try {
    await fs.link(from, to);
  } catch (error) {
    if (systemCode(error) === 'EEXIST') throw error;
    await fs.rename(from, to);
  }
}

async function moveAside(to: string, old: string): Promise<void> {
  await withPath('Cannot move aside', to, async () => {
    try {
      await fs.rename(to, old);
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') throw error;
    }
  });
}

async function putBack(old: string, to: string): Promise<void> {
  try {
    await fs.rename(old, to);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return;
    const message = `Cannot put ${plain(to)} back. The old file is ${plain(old)}; rename it by hand.`;
    throw new HqqError('ERR_IO', message, { cause: error });
  }
}

/** Whether a file has a name in it. */
async function mentions(path: string, name: string): Promise<boolean> {
  if ((await standing(path)) === undefined) return false;
  return withPath('Cannot read', path, async () => {
    const file = await fs.open(path, 'r');
    try {
      const bytes = Buffer.from(name);
      const buffer = Buffer.alloc(CHUNK_BYTES + bytes.length);
      for (let at = 0; ; at += CHUNK_BYTES) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
        if (buffer.subarray(0, bytesRead).includes(bytes)) return true;
        if (bytesRead < buffer.length) return false;
      }
    } finally {
      await file.close();
    }
  });
}

/** Where a run ended before its file was in place: what it put beside goes, and an old one comes back. */
export function settleBesideSync({ path, target, aside }: Omit<Placement, 'made' | 'force'>, beside: string): void {
  const statOf = (file: string) => statSync(file, { throwIfNoEntry: false, bigint: true });
  const isSame = (a: BigIntStats | undefined, b: BigIntStats | undefined) =>
    a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
  const [old, main, partial] = [statOf(aside + beside), statOf(target), statOf(path)];
  const isUnplaced = partial !== undefined && !isSame(partial, main);
  if (isUnplaced && isSame(statOf(path + beside), statOf(target + beside))) rmSync(target + beside);
  // A file that was put in place later than the old one was moved aside is another run's, and has what stands beside it.
  if (old && isUnplaced && (!main || main.ctimeNs <= old.ctimeNs)) renameSync(aside + beside, target + beside);
  else if (old) rmSync(aside + beside, { force: true });
  rmSync(path + beside, { force: true });
}
