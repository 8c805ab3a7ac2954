import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { floatOfHalf, halfOfFloat } from '../../lib/backend/js/lanes.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import type { QuantizedTensor } from '../../lib/matrix/weight.js';
import type { ModelOptions } from '../../lib/models/options.js';
import { loadTensors } from '../../lib/models/tensors.js';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { encode, failure, numbersOf, readBack, snapshot, tensorOf } from '../support/checkpoints.js';
import { hqq } from '../support/cli.js';
import { changedModel, narrowModel, SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('tune');
const text =
  'The sea was calm, and the ship lay still. Nobody knew why she had come, or who was to pay for it. '.repeat(12);
const tune: TuneOptions = { data: { text }, steps: 4, tokens: 256, length: 32, batch: 2 };
const options = { nbits: 2, groupSize: 64, tune } as const satisfies QuantConfig & ModelOptions;

const tensorsOf = (folder: string) => readFileSync(join(folder, 'model.safetensors'));

describe('tuning', () => {
  const narrow = narrowModel(scratch, 'input');
  /** What comes of it with `options`. */
  let whole: Buffer;

  beforeAll(async () => {
    const output = join(scratch, 'whole');
    await quantizeModel(narrow, output, options);
    whole = tensorsOf(output);
  });

  test('brings blocks nearer to those of floats, and leaves nothing beside the output', async () => {
    const folder = join(scratch, 'first');
    mkdirSync(folder);
    const stands: number[] = [];
    const report = await quantizeModel(SHIPPED, join(folder, 'q'), {
      ...options,
      onProgress: ({ tuning }) => void (tuning && stands.push(tuning.done / tuning.total)),
    });
    expect(report.importance).toBe('text');
    expect(report.notes.join(' ')).toMatch(
      /Tuned 3 blocks in 4 steps each: .* are \d{2}(\.\d)? % of what they were; (none|1) was better before/,
    );
    expect(stands.at(-1)).toBe(1);
    expect(stands).toEqual([...stands].sort((a, b) => a - b));
    expect(readdirSync(folder)).toEqual(['q']);
  });

  test('gives the same bytes for any number of threads, and others for another seed', async () => {
    for (const threads of [1, 7]) {
      const output = join(scratch, `threads-${threads}`);
      await quantizeModel(narrow, output, { ...options, threads });
      expect(tensorsOf(output).equals(whole)).toBe(true);
    }
    const other = join(scratch, 'seed');
    await quantizeModel(narrow, other, { ...options, seed: 1 });
    expect(tensorsOf(other).equals(whole)).toBe(false);
  });

  test('goes on where it was stopped, however often, and ends with the same bytes', async () => {
    const folder = join(scratch, 'stopped');
    mkdirSync(folder);
    const output = join(folder, 'q');
    let stops = 0;
    for (; stops < 20; stops++) {
      const controller = new AbortController();
      let [first, steps] = [-1, 0];
      const run = quantizeModel(narrow, output, {
        ...options,
        signal: controller.signal,
        // After one block more, some way into the next.
        onProgress({ tuning }) {
          if (tuning === undefined) return;
          if (first < 0) first = tuning.block;
          if (tuning.block > first || stops % 2 === 1) steps++;
          if (steps > 1 + (stops % 3)) controller.abort(new Error('stopped'));
        },
      });
      const error = await run.then(
        () => undefined,
        (reason: Error) => reason,
      );
      if (error === undefined) break;
      expect(error.message).toBe('stopped');
      expect(readdirSync(folder)).toEqual(['q.tune']);
    }
    expect(stops).toBeGreaterThan(2);
    expect(tensorsOf(output).equals(whole)).toBe(true);
    expect(readdirSync(folder)).toEqual(['q']);
  });

  test('refuses the state of other options, and removes it when asked to', async () => {
    const output = join(scratch, 'other');
    const controller = new AbortController();
    // The state lies beside the output however that is written.
    const stopped = quantizeModel(narrow, `${output}/`, {
      ...options,
      signal: controller.signal,
      onProgress: ({ tuning }) => void (tuning?.block === 1 && controller.abort(new Error('stopped'))),
    });
    expect((await failure(() => stopped)).message).toBe('stopped');
    expect(existsSync(`${output}.tune`)).toBe(true);
    const changed = { ...options, tune: { ...tune, steps: 5 } };
    const error = await failure(() => quantizeModel(narrow, output, changed));
    expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(error.message).toMatch(/other\.tune to be the state of this run.*--tune-restart/);
    await quantizeModel(narrow, output, { ...options, tune: { ...tune, restart: true } });
    expect(tensorsOf(output).equals(whole)).toBe(true);
    expect(existsSync(`${output}.tune`)).toBe(false);
    mkdirSync(`${output}-2.tune/mine`, { recursive: true });
    const kept = await failure(() => quantizeModel(narrow, `${output}-2`, options));
    expect(kept.message).toMatch(/Expected nothing at .*other-2\.tune/);
    expect(existsSync(`${output}-2.tune/mine`)).toBe(true);
  });

  test.each<readonly [string, QuantConfig & ModelOptions]>([
    ['integer zeros of an engine', { to: 'compressed-tensors', nbits: 4, groupSize: 32 }],
    ['scales in bytes', { nbits: 2, groupSize: 32, metaBits: 8 }],
    ['symmetric zeros along columns', { nbits: 3, groupSize: 32, axis: 0, zeroPoint: 'symmetric' }],
    ['scales of a row each', { nbits: 4, granularity: 'channel' }],
    ['a scale of all weights', { nbits: 8, granularity: 'tensor' }],
    ['scales of bfloat16', { nbits: 2, groupSize: 64, scaleDtype: 'bfloat16' }],
    ['scales of float16 among float32', { nbits: 2, groupSize: 64, scaleDtype: 'float16', metaDtype: 'float32' }],
  ])('reaches %s', async (name, own) => {
    const [plain, tuned] = ['plain', 'tuned'].map((kind) => join(scratch, `${name} ${kind}`)) as [string, string];
    await quantizeModel(narrow, plain, { ...own, importance: 'none' });
    const report = await quantizeModel(narrow, tuned, { ...own, importance: 'none', tune });
    expect(report.importance).toBe('none');
    expect(report.notes.join(' ')).toMatch(/Tuned 3 blocks/);
    expect(tensorsOf(tuned).length).toBe(tensorsOf(plain).length);
    expect(tensorsOf(tuned).equals(tensorsOf(plain))).toBe(false);
  });

  test('moves scales and zeros of the whole model after its blocks, and goes on with that, too', async () => {
    const model = { ...options, tune: { ...tune, tokens: 128, steps: 2, model: 4 } } as const;
    const whole = join(scratch, 'model');
    await quantizeModel(narrow, whole, model);
    const report = await quantizeModel(SHIPPED, join(scratch, 'model shipped'), model);
    const notes = report.notes.join(' ');
    expect(notes).toMatch(
      /scales and zeros of all layers together in 4 steps: .* are off by [\d.]+ nats, not [\d.]+ nats/,
    );
    const [after, before] = /off by ([\d.]+) nats, not ([\d.]+) nats/.exec(notes)!.slice(1).map(Number) as [
      number,
      number,
    ];
    expect(after).toBeLessThan(before);
    // Scales that another type would round once more: the writer refuses those.
    await quantizeModel(narrow, join(scratch, 'model bfloat16'), { ...model, scaleDtype: 'bfloat16' });
    const stopped = join(scratch, 'model stopped');
    const controller = new AbortController();
    const run = quantizeModel(narrow, stopped, {
      ...{ ...model, threads: 1, signal: controller.signal },
      // In the middle of the last stage.
      onProgress: ({ tuning }) =>
        void (tuning && tuning.total - tuning.done < 10 && controller.abort(new Error('stopped'))),
    });
    expect((await failure(() => run)).message).toBe('stopped');
    await quantizeModel(narrow, stopped, { ...model, threads: 7 });
    expect(tensorsOf(stopped).equals(tensorsOf(whole))).toBe(true);
    const without = join(scratch, 'model without');
    await quantizeModel(narrow, without, { ...model, tune: { ...model.tune, model: false } });
    expect(tensorsOf(without).equals(tensorsOf(whole))).toBe(false);
  });

  test('stores zeros that float16 does not hold as float32, where that is to be found out', async () => {
    const input = narrowModel(scratch, 'narrow');
    const name = 'model.layers.0.mlp.down_proj.weight';
    const tensors = Object.fromEntries(readBack(narrow));
    const { shape } = tensors[name]!;
    const weights = numbersOf(tensors[name]!);
    for (let i = 0; i < 64; i++) weights[i] = 0.02 * (1 + 1e-5 * (i % 5));
    writeFileSync(join(input, 'model.safetensors'), encode({ ...tensors, [name]: tensorOf(weights, shape) }));
    const output = join(scratch, 'narrow tuned');
    const report = await quantizeModel(input, output, { ...options, tune: { ...tune, model: 2 } });
    expect(report.notes.join(' ')).toMatch(/are \d{2}(\.\d)? % of what they were/);
    const { scale, zero } = (await loadTensors(output))[name] as QuantizedTensor;
    expect(Math.abs(zero[0]!)).toBeGreaterThan(65520);
    expect(scale.some((value) => value !== floatOfHalf(halfOfFloat(value)))).toBe(true);
  });

  test('names a block that gives no finite numbers', async () => {
    const input = narrowModel(scratch, 'infinite');
    const name = 'model.layers.1.post_attention_layernorm.weight';
    const tensors = Object.fromEntries(readBack(narrow));
    const { shape } = tensors[name]!;
    const large = tensorOf(new Float32Array(shape[0]!).fill(3e38), shape);
    writeFileSync(join(input, 'model.safetensors'), encode({ ...tensors, [name]: large }));
    const own = { ...options, importance: 'none', tune: { ...tune, steps: 1 } } as const;
    const error = await failure(() => quantizeModel(input, join(scratch, 'infinite tuned'), own));
    expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(error.message).toMatch(/Expected block 1 of .*infinite to give finite numbers/);
  });

  test('keeps what the solver found where that is better', async () => {
    const [plain, tuned] = [join(scratch, 'kept plain'), join(scratch, 'kept tuned')];
    const own = { nbits: 8, groupSize: 64, importance: 'none' } as const;
    await quantizeModel(narrow, plain, own);
    const report = await quantizeModel(narrow, tuned, { ...own, tune: { ...tune, rate: 0.5, steps: 2 } });
    expect(report.notes.join(' ')).toMatch(/3 were better before, and stayed so/);
    expect(snapshot(tuned)).toEqual(snapshot(plain));
  });

  test.each([1, 2])('gains in as few steps as %i', async (steps) => {
    const output = join(scratch, `few-${steps}`);
    const report = await quantizeModel(narrow, output, { ...options, importance: 'none', tune: { ...tune, steps } });
    expect(report.notes.join(' ')).toMatch(/none was better before/); // with a rate of 0.5 / steps most were
  });

  test('says in grammar that one layer lies in no block', async () => {
    const untied = changedModel(scratch, 'untied', { tie_word_embeddings: false }, narrow);
    const tensors = Object.fromEntries(readBack(narrow));
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight']!;
    writeFileSync(join(untied, 'model.safetensors'), encode(tensors));
    const own = { ...options, importance: 'none', include: ['*.0.*q_proj*', 'lm_head*'] } as const;
    const report = await quantizeModel(untied, join(scratch, 'one'), { ...own, tune: { ...tune, steps: 1 } });
    expect(report.notes.join(' ')).toMatch(/1 layer of 2 \("lm_head"\) is in no block, and was not tuned\./);
  });

  test('says that nothing is weighed where no solver reads it', async () => {
    for (const [own, importance] of [
      [{ solver: 'hqq' }, 'none'],
      [{ nbits: 8 }, 'none'],
      [{}, 'text'],
    ] as const) {
      const report = await quantizeModel(SHIPPED, join(scratch, 'weighed'), { ...options, ...own, dryRun: true });
      expect(report.importance).toBe(importance);
    }
  });

  test('says what it does not go with', async () => {
    const cases: readonly (readonly [QuantConfig & ModelOptions, RegExp])[] = [
      [{ tune: { steps: 0 } }, /tune\.steps to be an integer in \[1, 100000\], got 0/],
      [{ tune: { stepz: 3 } as TuneOptions }, /Unknown option "stepz"/],
      [{ tune: { data: 'text:' } }, /tune\.data to be auto, own, random, text:<file> or \{ text \}/],
      [{ tune: { model: 0 } }, /tune\.model to be true, false or an integer in \[1, 100000\], got 0/],
      [{ tune: 3 as never }, /tune to be true, false or an object of options, got 3/],
      [{ tune: true, refine: true }, /refine to be false with tune/],
      [{ tune: true, sequential: true }, /sequential to be false with tune/],
      [{ tune: true, iterations: 'auto' }, /iterations to be a number with tune, got "auto"/],
    ];
    for (const [given, message] of cases) {
      const error = await failure(() => quantizeModel(SHIPPED, join(scratch, 'refused'), given));
      expect(error.code).toBe('ERR_INVALID_OPTION');
      expect(error.message).toMatch(message);
    }
    const queued = await failure(() =>
      quantizeModel(SHIPPED, join(scratch, 'queued'), { tune: true, queue: { url: 'redis://localhost:1' } }),
    );
    expect(queued.message).toMatch(/tune/);
    expect(existsSync(join(scratch, 'refused.tune'))).toBe(false);
  });

  test('is asked for on the command line, with its steps or without', async () => {
    const args = ['quantize', SHIPPED, '--out', join(scratch, 'cli'), '--nbits', '2', '--dry-run', '--json'];
    for (const flags of [
      ['--tune', '--tune-model'],
      ['--tune', '7', '--tune-rate', '0.01', '--tune-model', '3'],
      ['--tune=7', '--tune-data', 'own'],
    ]) {
      const { status, stdout } = await hqq([...args, ...flags]);
      expect(status).toBe(0);
      expect((JSON.parse(stdout) as { importance: string }).importance).toBe('own');
    }
    for (const [flags, message] of [
      [['--tune-steps', '3'], /Unknown flag/],
      [['--tune-rate', '0.01'], /Expected --tune with --tune-rate/],
      [['--tune-model'], /Expected --tune with --tune-model/],
      [['--tune', '--tune-model', '0'], /Expected --tune-model to be an integer in \[1, 100000\], got 0/],
      [['--tune', '--tune-data', 'book.txt'], /Expected --tune-data to be auto, own, random or text:<file>, got/],
      [['--tune=0'], /Expected --tune to be an integer in \[1, 100000\], got 0/],
    ] as const) {
      const { status, stderr } = await hqq([...args, ...flags]);
      expect(status).toBe(2);
      expect(stderr).toMatch(message);
    }
  });
});
