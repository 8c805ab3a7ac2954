import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

test('the plot of docs/quality.md is what its script draws of bench/quality.json', () => {
  const script = fileURLToPath(new URL('../bench/quality-plot.mjs', import.meta.url));
  const drawn = execFileSync(process.execPath, [script], { encoding: 'utf8' });
  expect(drawn).toBe(readFileSync(new URL('../docs/quality.svg', import.meta.url), 'utf8'));
});
