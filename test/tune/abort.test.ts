import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { begunAfterAbort } from '../support/aborts.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// Whoever tunes begins nothing any more once it is aborted, wherever it is, and leaves nothing but its state.

const scratch = scratchFolder('tune-abort');
afterEach(() => vi.restoreAllMocks());

const text =
  'The sea was calm, and the ship lay still. Nobody knew why she had come, or who was to pay for it. '.repeat(3);
const few: TuneOptions = { steps: 2, tokens: 96, length: 32, batch: 2, model: 1 };

const own = { nbits: 2, groupSize: 64, threads: 1 } as const;
const aborted = (output: string, tune: TuneOptions, at: number) =>
  begunAfterAbort((signal) => quantizeModel(SHIPPED, output, { ...own, tune, signal }), at);

describe('an abort ends', () => {
  test.each([
    ['what writes the text', { ...few, data: 'own' }, [3, 40]],
    // Statistics, solvers, steps, errors, states, then the whole model and the output.
    ['all that comes after it', { ...few, data: { text } }, [3, 45, 100, 170, 200, 120]],
  ] as const)('%s', async (name, tune, places) => {
    const folder = join(scratch, name);
    mkdirSync(folder);
    let times = 0;
    for (const at of places) {
      const after = await aborted(join(folder, 'q'), tune, at);
      if (after === undefined) break; // each goes on where the one before it was stopped
      expect(after, `at ${at}`).toBeLessThanOrEqual(1);
      // Nothing at all, where no text is there yet.
      expect(readdirSync(folder).filter((one) => one !== 'q.tune')).toEqual([]);
      times++;
    }
    expect(times).toBeGreaterThanOrEqual(Math.min(places.length, 5));
  });

  test('and its state is removed when it begins anew', async () => {
    const [output, whole] = [join(scratch, 'anew'), join(scratch, 'whole')];
    expect(await aborted(output, { ...few, data: { text } }, 100)).toBeLessThanOrEqual(1);
    expect(readdirSync(`${output}.tune`)).toContain('state.json');
    const other = { ...few, model: false, data: { text } };
    await quantizeModel(SHIPPED, output, { ...own, tune: { ...other, restart: true } });
    await quantizeModel(SHIPPED, whole, { ...own, tune: other });
    const bytes = (folder: string) => readFileSync(join(folder, 'model.safetensors'));
    expect(bytes(output).equals(bytes(whole))).toBe(true);
    expect(existsSync(`${output}.tune`)).toBe(false);
  });
});
