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
