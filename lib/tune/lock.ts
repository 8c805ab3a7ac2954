import { randomUUID } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { closeFile, createFile, readWhole, standing, syncFile, withPath, writeFully } from '../files/io.js';
import { isAlive, isOwnDisk, parseMark, RUN_MARK } from '../files/run-mark.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';

// One run at a time works in the folder of a state: two of one output would write each other's streams.

const LOCK = 'lock';

/** Names of it, also of one that is being removed. */
export const isLock = (name: string): boolean => name === LOCK || name.startsWith(`${LOCK}-`);

/** Bytes of a mark are far fewer. */
const MAX_BYTES = 4096;

/**
 * Takes the folder for this run, also from one that has ended.
 *
 * @returns gives it back
 * @throws {HqqError} `ERR_IO` where another run has it, or may have it
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, LOCK);
  const held = await standing(path);
  if (held !== undefined) await removeStale(folder, path);
  let fd: number;
  try {
    fd = await createFile(path, 0o600);
  } catch (error) {
    if (await standing(path)) throw busy(folder, '', error); // it came first
    throw error;
  }
  try {
    await writeFully(fd, path, 0, Buffer.from(RUN_MARK));
    await syncFile(fd, path);
  } finally {
    await closeFile(fd);
  }
  return () => withPath('Cannot remove', path, () => fs.rm(path, { force: true }));
}

/** Removes what a run left that has ended; that of one that took its place in between is put back. */
async function removeStale(folder: string, path: string): Promise<void> {
  const text = await readMark(path);
  const run = parseMark(text);
  // None: the run ended, or is still, between its file and the mark in it.
  const life = run === undefined ? 'unknown' : isAlive(run, isOwnDisk(folder));
  if (life === 'yes') throw busy(folder, '');
  if (life === 'unknown') {
    const advice = ` It is not on this machine, as far as can be seen: if it has ended, remove ${plain(path)}.`;
    throw busy(folder, advice);
  }
  const aside = `${path}-${randomUUID()}`;
  await withPath('Cannot remove', path, () => fs.rename(path, aside));
  try {
    if ((await readMark(aside)) === text) return;
    await fs.link(aside, path).catch(() => {});
    throw busy(folder, '');
  } finally {
    await fs.rm(aside, { force: true });
  }
}

const readMark = async (path: string) => (await readWhole(path, MAX_BYTES)).toString('latin1');

function busy(folder: string, advice: string, cause?: unknown): HqqError {
  const message = `Another run is tuning into ${plain(folder)}. Wait until it ends, stop it, or choose another output.`;
  return new HqqError('ERR_IO', `${message}${advice}`, cause === undefined ? undefined : { cause });
}
