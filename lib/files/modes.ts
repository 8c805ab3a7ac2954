import * as fs from 'node:fs/promises';

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
