import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// Whoever tunes begins nothing any more once it is aborted, wherever it is, and leaves nothing but its state.

const scratch = scratchFolder('tune-abort');
afterEach(() => vi.restoreAllMocks());

const text =
  'The sea was calm, and the ship lay still. Nobody knew why she had come, or who was to pay for it. '.repeat(3);
const few: TuneOptions = { steps: 2, tokens: 96, length: 32, batch: 2, model: 1 };

/** Aborts a run when its `at`-th operation begins: how many begin afterwards; undefined: it was through. */
async function begunAfterAbort(output: string, tune: TuneOptions, at: number): Promise<number | undefined> {
  const controller = new AbortController();
  const backend = activeBackend();
  const start = backend.start.bind(backend);
  let [begun, after] = [0, 0];
  vi.spyOn(backend, 'start').mockImplementation((operation, args) => {
    if (controller.signal.aborted) after++;
    if (++begun === at) setImmediate(() => controller.abort());
    return start(operation, args);
  });
  const { signal } = controller;
  const error = await quantizeModel(SHIPPED, output, { nbits: 2, groupSize: 64, threads: 1, tune, signal }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  vi.restoreAllMocks();
  if (error === undefined) return undefined;
  expect(error).toBe(signal.reason);
  return after;
}

describe('an abort ends', () => {
  test.each([
    ['what writes the text', { ...few, data: 'own' }, [3, 40]],
    // Statistics, solvers, steps, errors, states, then the whole model and the output.
    ['all that comes after it', { ...few, data: { text } }, [3, 20, 45, 70, 100, 140, 170, 200, 120, 90, 60]],
  ] as const)('%s', async (name, tune, places) => {
    const folder = join(scratch, name);
    mkdirSync(folder);
    let aborted = 0;
    for (const at of places) {
      const after = await begunAfterAbort(join(folder, 'q'), tune, at);
      if (after === undefined) break; // each goes on where the one before it was stopped
      expect(after, `at ${at}`).toBeLessThanOrEqual(1);
      // Nothing at all, where no text is there yet.
      expect(readdirSync(folder).filter((one) => one !== 'q.tune')).toEqual([]);
      aborted++;
    }
    expect(aborted).toBeGreaterThanOrEqual(Math.min(places.length, 6));
  });

  test('and its state is removed when it begins anew', async () => {
    const [output, whole] = [join(scratch, 'anew'), join(scratch, 'whole')];
    expect(await begunAfterAbort(output, { ...few, data: { text } }, 100)).toBeLessThanOrEqual(1);
    expect(readdirSync(`${output}.tune`)).toContain('state.json');
    const own = { nbits: 2, groupSize: 64, threads: 1 } as const;
    const other = { ...few, model: false, data: { text } };
    await quantizeModel(SHIPPED, output, { ...own, tune: { ...other, restart: true } });
    await quantizeModel(SHIPPED, whole, { ...own, tune: other });
    const bytes = (folder: string) => readFileSync(join(folder, 'model.safetensors'));
    expect(bytes(output).equals(bytes(whole))).toBe(true);
    expect(existsSync(`${output}.tune`)).toBe(false);
  });
});
