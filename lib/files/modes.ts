import * as fs from 'node:fs/promises';
import { join } from 'node:path';

/** Permissions of what stands at `path`, links followed; undefined where that cannot be told. */
export async function modeAt(path: string): Promise<number | undefined> {
  return fs.stat(path).then(
    ({ mode }) => mode & 0o777,
    () => undefined,
  );
}

/** The same permissions, with what the owner needs. */
export function ownable(mode: number): number {
  return (mode & 0o777) | 0o600;
}

/** Permissions of a folder as of a file: who may read it may look for what is in it. Those of a folder stay, with what the owner needs. */
export function enterable(mode: number): number {
  return mode | 0o700 | ((mode & 0o111) === 0 ? (mode & 0o444) >> 2 : 0);
}

/** Permissions for a new file `relative` of a folder that is like the folder or file `like`; '.' for a file that is like a file. */
export async function modeLike(like: string, relative: string): Promise<number> {
  const own = await modeAt(join(like, relative));
  if (own !== undefined) return ownable(own);
  const whole = await modeAt(like); // a name that is new: as open as the whole
  return whole === undefined ? 0o600 : ownable(whole & 0o666);
}
