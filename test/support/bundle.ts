import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A script of test/fixtures in TypeScript, as a file that Node runs: below the repository, where the program finds its addon. */
export async function bundled(script: string): Promise<string> {
  const { build } = await import('tsdown');
  mkdirSync(join(ROOT, '.cache'), { recursive: true });
  const outDir = mkdtempSync(join(ROOT, '.cache', 'fixture-'));
  afterAll(() => rmSync(outDir, { recursive: true, force: true }));
  const entry = join(ROOT, 'test', 'fixtures', script);
  await build({
    ...{ entry, outDir, config: false, cwd: ROOT, dts: false, logLevel: 'silent' },
    ...{ format: 'esm', platform: 'node', target: 'node20', fixedExtension: true },
  });
  return join(outDir, basename(script).replace(/\.ts$/, '.mjs'));
}
