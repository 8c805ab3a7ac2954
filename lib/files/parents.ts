import { rmdirSync, type Stats } from 'node:fs';
import * as fs from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { creationError, ioError, standing, systemCode, withPath } from './io.js';

/**
 * The real path of the folder that the output will be in. What is missing of it is to be made (`makeParents`), so that the
 * folder that is to hold it must be writable.
 */
export async function checkParent(parent: string): Promise<string> {
  const missing: string[] = [];
  for (let at = parent; ; at = dirname(at)) {
    const stat = await folderAt(at);
    if (stat === undefined) {
      missing.unshift(basename(at));
      continue;
    }
    if (!stat.isDirectory()) throw new HqqError('ERR_IO', `${plain(at)}, where the output would be, is not a folder.`);
    return withPath('Cannot write to', at, async () => {
      await fs.access(at, fs.constants.W_OK | fs.constants.X_OK);
      return join(await fs.realpath(at), ...missing);
    });
  }
}

/** What stands at `path`, links followed; undefined for nothing. */
async function folderAt(path: string): Promise<Stats | undefined> {
  try {
    return await fs.stat(path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' || dirname(path) === path) throw ioError('Cannot write to', path, error);
    if ((await standing(path)) === undefined) return undefined;
    const message = `${plain(path)}, where the output would be, is a link that leads nowhere.`;
    throw new HqqError('ERR_IO', message, { cause: error });
  }
}

/** Makes `folder` and the folders above it that are missing. `made` gets each, the deepest first, as soon as it is there. */
export async function makeParents(folder: string, made: string[]): Promise<void> {
  const missing: string[] = [];
  for (let at = folder; (await standing(at)) === undefined; at = dirname(at)) missing.unshift(at);
  for (const path of missing) {
    try {
      await fs.mkdir(path);
      made.unshift(path);
    } catch (error) {
      if (systemCode(error) !== 'EEXIST') throw creationError(path, error); // else another run made it
    }
  }
}

/** Removes those of `made` that are empty: what others have put there since stays. */
export async function removeParents(made: readonly string[]): Promise<void> {
  try {
    for (const path of made) await fs.rmdir(path);
  } catch {
    // Not empty, and so neither are those above.
  }
}

/** Blocking twin of `removeParents`. Throws at the first that is not empty. */
export function removeParentsSync(made: readonly string[]): void {
  for (const path of made) rmdirSync(path);
}
