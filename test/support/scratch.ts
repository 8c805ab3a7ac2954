import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const folders: string[] = [];

/** A folder of the module that asks. At the end of each test file it is removed: what is written later makes it anew. */
export function scratchFolder(label: string): string {
  const folder = mkdtempSync(join(tmpdir(), `hqq-${label}-`));
  folders.push(folder);
  return folder;
}

export function removeScratchFolders(): void {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}
