import { expect, test } from 'vitest';
import { runFixture } from '../child.js';

const isGlibc = (process.report.getReport() as { header: { glibcVersionRuntime?: string } }).header.glibcVersionRuntime;

test('what was freed goes back to the system between phases', async () => {
  const { status, stdout, stderr } = await runFixture('give-back.mjs');
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const { before, after } = JSON.parse(stdout) as { before: number; after: number };
  // Other C libraries give it back by themselves, or are not asked.
  expect(before - after).toBeGreaterThan(isGlibc === undefined ? -1_000_000 : 40_000_000);
});
