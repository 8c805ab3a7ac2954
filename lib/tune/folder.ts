import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { standing, systemCode, withPath } from '../files/io.js';
import { HqqError } from '../messages/errors.js';
import { plain, quoteSome } from '../messages/text.js';
import { isLock } from './lock.js';

// The folder of a state. It may lie where something of the user's lies: no more is removed than what a state is made of.

const OURS = /^(texts\.bin|model\.bin|state\.(json|partial)|(block|floats|codes)-\d+\.bin)$/;

/** @throws {HqqError} `ERR_IO` for what is no folder, or holds what is no part of a state */
export async function checkOurs(folder: string): Promise<void> {
  const stat = await standing(folder);
  if (stat === undefined) return;
  const others = stat.isDirectory()
    ? (await namesIn(folder)).filter((name) => !OURS.test(name) && !isLock(name))
    : undefined;
  if (others?.length === 0) return;
  const message = `Expected nothing at ${plain(folder)}, where the state of tuning goes, got something else`;
  const which = others ? ` (${quoteSome(others, 2)})` : '';
  throw new HqqError('ERR_IO', `${message}${which}. Move it away, or choose another output.`);
}

/** Removes the files of a state, but for what says whose it is. */
export async function clear(folder: string): Promise<void> {
  for (const name of await namesIn(folder)) {
    const path = join(folder, name);
    if (OURS.test(name)) await withPath('Cannot remove', path, () => fs.rm(path, { force: true }));
  }
}

/** Removes a folder that nothing is in any more; one that something else is in stays. */
export async function removeEmpty(folder: string): Promise<void> {
  try {
    await fs.rmdir(folder);
  } catch (error) {
    const code = systemCode(error);
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST' && code !== 'ENOENT')
      await withPath('Cannot remove', folder, () => Promise.reject(error));
  }
}

const namesIn = (folder: string) => withPath('Cannot list', folder, () => fs.readdir(folder));
