import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

/** A folder for the test file that asks, removed at its end. */
export function scratchFolder(label: string): string {
  const folder = mkdtempSync(join(tmpdir(), `hqq-${label}-`));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
