import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import { collectBy, giveBack } from '../../lib/calibrate/give-back.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const isGlibc = (process.report.getReport() as { header: { glibcVersionRuntime?: string } }).header.glibcVersionRuntime;
const scratch = scratchFolder('give-back');
const { gc } = globalThis;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

afterEach(() => {
  collectBy(() => {});
  globalThis.gc = gc;
});

describe('between phases', () => {
  test('what was freed goes back to the system', async () => {
    activeBackend();
    const make = () => new Float32Array(25_000).fill(1); // no more than malloc has a mapping of its own for
    const last = (() => {
      const arrays = Array.from({ length: 600 }, make);
      return [make(), arrays.length] as const; // above all others, which so cannot be cut off the heap's end
    })();
    await new Promise(setImmediate);
    collect();
    collect();
    const before = process.memoryUsage().rss;
    await giveBack();
    // Other C libraries give it back by themselves, or are not asked.
    expect(before - process.memoryUsage().rss).toBeGreaterThan(isGlibc === undefined ? -1_000_000 : 40_000_000);
    expect(last[0].length).toBe(25_000);
  });

  test('garbage is collected by who was allowed to, and never by what node --expose-gc gives', async () => {
    const exposed = vi.fn();
    globalThis.gc = exposed as unknown as NodeJS.GCFunction;
    await giveBack();
    const allowed = vi.fn();
    collectBy(allowed);
    await giveBack();
    expect([exposed.mock.calls.length, allowed.mock.calls.length]).toEqual([0, 2]);
  });

  const runs = [
    { importance: 'random' },
    { importance: 'random', sequential: true },
    { importance: 'random', refine: true },
  ] as const;
  test.each(runs)('quantizeModel does so, before it encodes: %j', async (options) => {
    const events: string[] = [];
    collectBy(() => events.push('collected'));
    await quantizeModel(SHIPPED, join(scratch, `${runs.indexOf(options)}`), {
      ...{ nbits: 4, tokens: 16, metaDtype: 'float32', ...options },
      onProgress: ({ importance }) => events.push(importance ? 'weighing' : 'encoding'),
    });
    const first = events.indexOf('encoding');
    expect(first).toBeGreaterThan(0);
    expect(events.slice(0, first).slice(-3)).toEqual(['weighing', 'collected', 'collected']);
    expect(events.slice(first)).not.toContain('collected');
  });

  test('the command collects', () => {
    const cli = fileURLToPath(new URL('../../dist/cli.mjs', import.meta.url));
    const args = ['quantize', SHIPPED, '--out', join(scratch, 'command'), '--importance', 'random', '--tokens', '16'];
    const { status, stdout } = spawnSync(process.execPath, ['--trace-gc', cli, ...args], { encoding: 'utf8' });
    expect(status).toBe(0);
    expect(stdout.match(/testing/g)).toHaveLength(4); // V8's word for those that are asked for
  });
});
