import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, test } from 'vitest';
import { collectImportance } from '../../lib/calibrate/collect.js';
import { saveStatistics } from '../../lib/calibrate/statistics-file.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { quantizeSync } from '../../lib/compute/quantize.js';
import type { QuantConfig } from '../../lib/matrix/config.js';
import type { QuantizedTensor, RawWeight } from '../../lib/matrix/weight.js';
import { openModel } from '../../lib/models/model.js';
import type { ConversionRun, ModelOptions } from '../../lib/models/options.js';
import type { Progress } from '../../lib/models/report.js';
import { loadTensors, saveTensors } from '../../lib/models/tensors.js';
import { expectSameBytes } from '../support/bytes.js';
import { encode, failure, modelFolder, randomTensor } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('importance');
const statistics = await collectImportance(SHIPPED, { tokens: 256 });
const file = join(scratch, 'statistics.safetensors');
await saveStatistics(file, statistics, { force: false, seed: 0 });
const original = await loadTensors(SHIPPED);

let made = 0;
async function quantized(options: QuantConfig & ModelOptions & ConversionRun, input: string = SHIPPED) {
  const output = join(scratch, `out-${made++}`);
  const report = await quantizeModel(input, output, options);
  return { output, report, bytes: () => readFileSync(join(output, 'model.safetensors')) };
}

describe('a model with importance', () => {
  // Chunks of a layer hold many groups, which begin anywhere in a row.
  test.each<QuantConfig & ModelOptions>([
    { nbits: 3, groupSize: 64 },
    { nbits: 4, groupSize: 64, axis: 0 },
    { nbits: 2, groupSize: 1024, overrides: { '*.o_proj': { groupSize: 16 } } }, // groups of several rows
    { nbits: 3, groupSize: 32, metaBits: 8 },
    { nbits: 3, groupSize: null },
    { nbits: 4, zeroPoint: 'symmetric', scaleDtype: 'bfloat16' },
  ])('holds what quantize gives of each weight: %j', async (config) => {
    const { output, report } = await quantized({ solver: 'joint', metaDtype: 'float32', importance: file, ...config });
    expect(report.importance).toBe(file);
    const layers = await loadTensors(output);
    expect(report.tensors.length).toBe(21);
    for (const { name, config: own } of report.tensors) {
      const importance = statistics.meanSquares.get(name.replace(/\.weight$/, ''))!;
      const expected = quantizeSync(original[name] as RawWeight, own, { importance });
      const { packed, scale, zero } = layers[name] as QuantizedTensor;
      expectSameBytes(packed, expected.packed);
      for (const [got, wanted] of [
        [scale, expected.scale],
        [zero, expected.zero],
      ])
        expect(isDeepStrictEqual(got, wanted), name).toBe(true);
    }
  });

  test('is one without, where all count alike', async () => {
    const ones = join(scratch, 'ones.safetensors');
    const meanSquares = new Map(
      [...statistics.meanSquares].map(([name, { length }]) => [name, new Float32Array(length).fill(2)]),
    );
    await saveStatistics(ones, { source: 'random', tokens: 1, meanSquares }, { force: false, seed: 0 });
    const config = { solver: 'joint', nbits: 3 } as const;
    const [alike, none] = [
      await quantized({ ...config, importance: ones }),
      await quantized({ ...config, importance: 'none' }),
    ];
    expect(alike.bytes().equals(none.bytes())).toBe(true);
    expect(none.report.importance).toBe('none');
    const other = await quantized({ ...config, importance: file });
    expect(other.bytes().equals(none.bytes())).toBe(false);
  });

  test('weighs a tied embedding with what the head sees', async () => {
    const { output, report } = await quantized({
      ...{ solver: 'joint', nbits: 3, metaDtype: 'float32', importance: 'random', tokens: 256, embeddings: 4 },
    });
    const name = 'model.embed_tokens.weight';
    const { config } = report.tensors.find((tensor) => tensor.name === name)!;
    const importance = statistics.meanSquares.get('lm_head')!;
    const expected = quantizeSync(original[name] as RawWeight, config, { importance });
    const own = (await loadTensors(output))[name] as QuantizedTensor;
    expectSameBytes(own.packed, expected.packed);
  });

  test('auto is random, the same for the same seed and any number of threads', async () => {
    const config = { solver: 'joint', nbits: 3, tokens: 300 } as const;
    const auto = await quantized({ ...config, threads: 1 });
    expect(auto.report.importance).toBe('random');
    const same = await quantized({ ...config, importance: 'random', seed: 0, threads: 7 });
    expect(auto.bytes().equals(same.bytes())).toBe(true);
    const other = await quantized({ ...config, importance: 'random', seed: 1 });
    expect(auto.bytes().equals(other.bytes())).toBe(false);
  });

  test('is nearer where it counts than one without, layer by layer', async () => {
    const config = { solver: 'joint', nbits: 3 } as const;
    const [without, weighed] = [
      await quantized({ ...config, importance: 'none' }),
      await quantized({ ...config, importance: file }),
    ];
    await using model = await openModel(SHIPPED);
    for (const [module, importance] of statistics.meanSquares) {
      if (module === 'lm_head') continue;
      const exact = await model.load(`${module}.weight`);
      const errorOf = async ({ output }: { output: string }) => {
        await using made = await openModel(output);
        const values = await made.load(`${module}.weight`);
        return values.reduce((sum, v, i) => sum + importance[i % importance.length]! * (v - exact[i]!) ** 2, 0);
      };
      expect(await errorOf(weighed), module).toBeLessThan(await errorOf(without));
    }
  });

  test('minmax reads none, and none is looked for', async () => {
    const progress: Progress[] = [];
    const output = join(scratch, 'minmax');
    const options = { solver: 'minmax', importance: 'random', onProgress: (p: Progress) => progress.push(p) } as const;
    expect((await quantizeModel(SHIPPED, output, options)).importance).toBe('none');
    expect(progress.some(({ importance }) => importance)).toBe(false);
  });

  test.each<QuantConfig>([{ nbits: 8 }, { solver: 'hqq' }])(
    'auto looks for none where %j asks for none',
    async (config) => {
      const progress: Progress[] = [];
      const auto = await quantized({ ...config, onProgress: (p: Progress) => progress.push(p) });
      expect(auto.report.importance).toBe('none');
      expect(progress.some(({ importance }) => importance)).toBe(false);
      expect(auto.bytes().equals((await quantized({ ...config, importance: 'none' })).bytes())).toBe(true);
    },
  );

  test('auto weighs those of the layers that it helps', async () => {
    const config = { solver: 'hqq', nbits: 3, tokens: 300, overrides: { '*.o_proj': { solver: 'joint' } } } as const;
    const [auto, none] = [await quantized(config), await quantized({ ...config, importance: 'none' })];
    expect(auto.report.importance).toBe('random');
    const [weighed, plain] = [await loadTensors(auto.output), await loadTensors(none.output)];
    const changed = Object.keys(weighed).filter((name) => !isDeepStrictEqual(weighed[name], plain[name]));
    expect(changed).toEqual(auto.report.tensors.map(({ name }) => name).filter((name) => name.includes('o_proj')));
  });

  test('tells how far it is, and of importance first', async () => {
    const progress: Progress[] = [];
    const options = { solver: 'joint', tokens: 128, onProgress: (p: Progress) => progress.push(p) } as const;
    await quantizeModel(SHIPPED, join(scratch, 'progress'), options);
    const first = progress.findIndex(({ importance }) => importance === undefined);
    expect(first).toBeGreaterThan(2);
    const all = progress.slice(0, first).map(({ importance }) => importance!);
    const begins = all.findIndex(({ phase }) => phase === 'reading');
    const [expecting, reading] = [all.slice(0, begins), all.slice(begins)];
    expect(new Set(expecting.map(({ phase }) => phase))).toEqual(new Set(['expecting']));
    expect(expecting[0]).toEqual({ phase: 'expecting', done: 0, total: 8 * 16 * 3 });
    expect(expecting.at(-1)).toEqual({ phase: 'expecting', done: 8 * 16 * 3, total: 8 * 16 * 3 });
    expect(reading[0]).toEqual({ phase: 'reading', done: 0, total: 128 * 3 });
    expect(reading.at(-1)).toEqual({ phase: 'reading', done: 128 * 3, total: 128 * 3 });
    expect(progress.slice(first).some(({ importance }) => importance)).toBe(false);
    expect(new Set(progress.map(({ weightsTotal }) => weightsTotal)).size).toBe(1);
  });

  test('a dry run says what it would be, and computes nothing', async () => {
    const options = { solver: 'joint', dryRun: true, onProgress: () => expect.unreachable() } as const;
    expect((await quantizeModel(SHIPPED, join(scratch, 'dry'), options)).importance).toBe('random');
  });

  test('an abort while it is found leaves nothing', async () => {
    const stop = new AbortController();
    const output = join(scratch, 'aborted');
    const options = {
      solver: 'joint',
      signal: stop.signal,
      onProgress: () => stop.abort(new Error('enough')),
    } as const;
    expect((await failure(() => quantizeModel(SHIPPED, output, options))).message).toBe('enough');
    expect(await failure(() => openModel(output))).toMatchObject({ code: 'ERR_IO' });
  });
});

describe('a model that the runtime does not run', () => {
  const names = (layer: string) => ({ [`h.0.${layer}.weight`]: randomTensor([64, 64], 3) });
  test('is quantized without, and a note says why', async () => {
    const source = { ...names('attn.c_proj'), ...names('mlp.c_fc') };
    const folder = modelFolder([source], { config: '{"model_type": "gpt2"}' });
    const { report } = await quantized({ solver: 'joint' }, folder);
    expect(report.importance).toBe('none');
    expect(report.notes.join('\n')).toMatch(/Importance is none: hqq\/runtime does not run this model/);
    const asked = await failure(() => quantizeModel(folder, join(scratch, 'x'), { importance: 'random' }));
    expect(asked).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT' });
  });

  test('such as a single file', async () => {
    const path = join(scratch, 'one.safetensors');
    writeFileSync(path, encode(names('mlp')));
    const output = join(scratch, 'two.safetensors');
    const report = await quantizeModel(path, output, { solver: 'joint' });
    expect(report.importance).toBe('none');
    expect(report.notes.join('\n')).toMatch(/Importance is none: without config\.json/);
  });
});

describe('statistics of another model', () => {
  const load = async (tensors: Parameters<typeof saveTensors>[1]) => {
    const path = join(scratch, `other-${made++}.safetensors`);
    await saveTensors(path, tensors);
    return failure(() => quantizeModel(SHIPPED, join(scratch, `o${made++}`), { solver: 'joint', importance: path }));
  };
  const name = 'model.layers.0.mlp.up_proj';
  const row = (length: number, value = 1) => ({ data: new Float32Array(length).fill(value), shape: [1, length] });

  test('are refused', async () => {
    expect((await load({ [`${name}.mean_square`]: row(8) })).message).toMatch(/up_proj to have 256 numbers.*got 8/);
    expect((await load({ 'a.mean_square': row(8) })).message).toMatch(/is of another model/);
    expect((await load({ a: row(8) })).message).toMatch(
      /hqq calibrate or an imatrix of llama\.cpp, got another tensor in "a"/,
    );
    expect((await load({ [`${name}.mean_square`]: row(256, -1) })).message).toMatch(/got -1 at index 0/);
    const missing = await failure(() => quantizeModel(SHIPPED, join(scratch, 'm'), { importance: './nothing' }));
    expect(missing).toMatchObject({ code: 'ERR_IO' });
  });

  test('that are of some layers weigh these, with a note', async () => {
    const path = join(scratch, 'some.safetensors');
    await saveTensors(path, { [`${name}.mean_square`]: row(256) });
    const { report } = await quantized({ solver: 'joint', importance: path });
    expect(report.notes.join('\n')).toMatch(/no statistics of 20 layers of 21/);
  });
});

test('a model in a folder that is gone is an error as ever', async () => {
  const folder = join(scratch, 'gone');
  cpSync(SHIPPED, folder, { recursive: true });
  rmSync(join(folder, 'model.safetensors'));
  expect(await failure(() => quantizeModel(folder, join(scratch, 'g'), {}))).toMatchObject({ code: /^ERR_/ });
});
