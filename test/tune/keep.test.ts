import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { QuantConfig } from '../../lib/matrix/config.js';
import type { ConversionRun, ModelOptions } from '../../lib/models/options.js';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { failure, snapshot } from '../support/checkpoints.js';
import { hqq } from '../support/cli.js';
import { narrowModel } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// Blocks are tuned once, whatever the last stage is to be, and however often it is asked for.

const scratch = scratchFolder('tune-keep');
const narrow = narrowModel(scratch, 'input');
const text =
  'The sea was calm, and the ship lay still. Nobody knew why she had come, or who was to pay for it. '.repeat(6);
const tune: TuneOptions = { data: { text }, steps: 2, tokens: 128, length: 32, batch: 2 };

type Options = QuantConfig & ModelOptions & ConversionRun;
const WIDTHS = {
  'blocks that are better tuned': { nbits: 2, groupSize: 64, tune },
  'blocks that were better before': { nbits: 3, groupSize: 64, importance: 'none', tune: { ...tune, rate: 0.5 } },
} as const satisfies Readonly<Record<string, Options>>;

/** What comes of a run, and how many steps it did. */
async function made(output: string, options: Options) {
  let steps = 0;
  const onProgress: Options['onProgress'] = ({ tuning }) => void (steps = tuning?.done ?? steps);
  const { notes } = await quantizeModel(narrow, output, { ...options, force: true, onProgress });
  return { files: snapshot(output), steps, notes: notes.join(' ') };
}

describe('a state that is kept', () => {
  test.each(Object.entries(WIDTHS))('goes on with any last stage, or none: %s', async (name, options) => {
    const run = (output: string, own: TuneOptions) =>
      made(join(scratch, `${name} ${output}`), { ...options, tune: { ...options.tune, ...own } });
    const [plain, moved] = [await run('plain', {}), await run('moved', { model: 3 })];
    expect(moved.files).not.toEqual(plain.files);

    const begun = await run('kept', { keep: true });
    expect(begun.files).toEqual(plain.files);
    expect(begun.notes).toMatch(
      /What was tuned stays in .*kept\.tune; with force \(--force\) the same run goes on from it, also .*--tune-model\)\./,
    );
    for (const [own, wanted, steps] of [
      [{ model: 2, keep: true }, undefined, 2 * 3],
      [{ model: 3, keep: true }, moved, 3 * 3],
      [{ keep: true }, plain, 0],
      [{ model: 3 }, moved, 3 * 3],
    ] as const) {
      const next = await run('kept', own);
      expect(next.steps).toBe(steps);
      if (wanted) expect(next.files).toEqual(wanted.files);
    }
    expect(existsSync(join(scratch, `${name} kept.tune`))).toBe(false);
  });

  test('forgets a last stage of other steps for good, wherever the next one is stopped', async () => {
    const output = join(scratch, 'stopped');
    const own = { ...WIDTHS['blocks that are better tuned'], force: true } as const;
    await quantizeModel(narrow, output, { ...own, tune: { ...tune, model: 2, keep: true } });
    const controller = new AbortController();
    const onProgress: Options['onProgress'] = ({ tuning }) => void (tuning && controller.abort(new Error('stopped')));
    const next = { ...own, tune: { ...tune, model: 3 } };
    const error = await failure(() =>
      quantizeModel(narrow, output, { ...next, signal: controller.signal, onProgress }),
    );
    expect(error.message).toBe('stopped');
    expect(readdirSync(`${output}.tune`)).not.toContain('model.bin');
    const whole = join(scratch, 'whole');
    for (const to of [output, whole]) await quantizeModel(narrow, to, next);
    expect(snapshot(output)).toEqual(snapshot(whole));
  });

  test('is asked for on the command line', async () => {
    const args = ['quantize', narrow, '--out', join(scratch, 'cli'), '--nbits', '2', '--group-size', '64'];
    const flags = ['--tune', '1', '--tune-keep', '--tune-data', 'random', '--tune-tokens', '64', '--tune-length', '32'];
    const { status, stdout } = await hqq([...args, ...flags, '--json']);
    expect(status).toBe(0);
    expect((JSON.parse(stdout) as { notes: string[] }).notes.join(' ')).toMatch(/stays in .*cli\.tune/);
    expect(readdirSync(join(scratch, 'cli.tune'))).toContain('state.json');
    const { status: refused, stderr } = await hqq([...args, '--tune-keep']);
    expect(refused).toBe(2);
    expect(stderr).toMatch(/Expected --tune with --tune-keep/);
  });
});
