import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import * as hqq from '../lib/index.js';
import * as js from '../lib/js.js';
import * as runtime from '../lib/runtime.js';
import { runFixture } from './child.js';

// What is imported and what is required are the same. On the built package (`npm run build:ts`).

const read = (file: string) => readFileSync(fileURLToPath(new URL(`../${file}`, import.meta.url)), 'utf8');

describe('one process has one copy', () => {
  test('of every export, class and error', async () => {
    const { stdout, stderr } = await runFixture('../install/one-copy.mjs');
    expect(stderr).toBe('');
    const seen = JSON.parse(stdout) as { names: string[][] };
    expect(seen).toMatchObject({ differing: [], instances: [true, true, true], products: [64, 64] });
    expect(seen.names).toEqual([hqq, js, runtime].map((entry) => Object.keys(entry).sort()));
  });

  test.each(['index', 'runtime', 'js'])('of the declarations of %s', (name) => {
    expect(read(`dist/${name}.d.mts`)).toBe(`export * from './${name}.cjs';\n`);
  });

  test('bundlers have one, too: whatever asks, the condition "module" comes before import and require', () => {
    const { exports } = JSON.parse(read('package.json')) as { exports: Record<string, Record<string, unknown>> };
    for (const [entry, conditions] of Object.entries(exports)) {
      if (typeof conditions === 'string') continue;
      const names = Object.keys(conditions).filter((name) => name !== 'browser');
      expect([entry, names[0]]).toEqual([entry, 'module']);
    }
  });
});
