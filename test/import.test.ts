import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { runFixture } from './child.js';

/** What the import of `entry` of dist reads: the number of files, and their text. */
async function loadedBy(entry: string, ...more: string[]): Promise<{ count: number; text: string }> {
  const url = new URL(`../dist/${entry}`, import.meta.url).href;
  const { stdout, stderr } = await runFixture('loaded.mjs', [url, ...more]);
  expect(stderr).toBe('');
  const files = JSON.parse(stdout) as string[];
  return { count: files.length, text: files.map((file) => readFileSync(fileURLToPath(file), 'utf8')).join('\n') };
}

/** Half of an import's time was spent on these. */
const WHOLE_MODELS = /class (?:Checkpoint|FileWriter|OpenFile|SafetensorsFile|Model)[ {]/;

// Time is measured by `npm run bench -- import`; what costs it is held here.
describe('importing', () => {
  test.each(['index.mjs', 'index.cjs', 'js.mjs', 'js.cjs', 'js-node.mjs'])(
    '%s reads what computes, and no more',
    async (entry) => {
      const { count, text } = await loadedBy(entry);
      expect(text).toContain('class QuantizedLinear');
      expect(text).not.toMatch(WHOLE_MODELS);
      expect(text).not.toMatch(/from ?["`](?!node:|\.)|require\(["`](?!node:|\.|node-gyp-build["`]|url["`])/); // no dependency, either
      expect(text).not.toMatch(
        /(?:from ?|require\()["`]node:(?:worker_threads|fs\/promises|inspector|child_process)["`]/,
      ); // slow to load
      expect(count).toBeLessThanOrEqual(5);
      expect(text.length).toBeLessThan(120_000);
    },
  );

  test.each(['index.mjs', 'index.cjs'])('%s reads the rest when it is called', async (entry) => {
    const { text } = await loadedBy(entry, 'call');
    expect(text).toMatch(WHOLE_MODELS);
    expect(text).not.toMatch(/class LanguageModel[ {]/); // that is hqq/runtime's
  });
});
