import { mkdirSync, promises, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { GramSets } from '../../lib/calibrate/graphs/gram-sets.js';
import { factorize } from '../../lib/calibrate/refine/factor.js';
import { feedBack } from '../../lib/calibrate/refine/feed-back.js';
import { addProducts, type Gram, Grams } from '../../lib/calibrate/refine/grams.js';
import { Overlaid } from '../../lib/calibrate/refine/overlaid.js';
import { refineLayers } from '../../lib/calibrate/refine/refine-layers.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { dequantize, quantize } from '../../lib/compute/quantize.js';
import type { TensorEntry, TensorSource } from '../../lib/containers/container.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import type { PlannedLayer } from '../../lib/schemes/scheme.js';
import { expectSameBytes } from '../support/bytes.js';
import { failure, modelFolder, randomTensor, randomWeights, readBack } from '../support/checkpoints.js';
import { hqq } from '../support/cli.js';
import { narrowModel, SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('refine');
/** What is off the diagonal, as the factorization takes it. */
const SHRINK = 0.4;

/** Inputs that go together: each feature is mostly a mix of a few. */
function inputs(rows: number, width: number): Float32Array {
  const [few, mixed, own] = [4, randomWeights(rows * 4, 1, 1), randomWeights(rows * width, 2, 0.3)];
  const mix = randomWeights(few * width, 3, 1);
  return own.map((value, at) => {
    const [row, i] = [Math.floor(at / width), at % width];
    return (
      value +
      Array.from({ length: few }, (_, k) => mixed[row * few + k]! * mix[k * width + i]!).reduce((a, b) => a + b, 0)
    );
  });
}

describe.each(availableBackends())('error feedback on %s', (name) => {
  const machine = { backend: openBackend(name), threads: 2, signal: undefined };
  const [rows, width, block] = [96, 80, 16];

  async function gramOf(x: Float32Array) {
    const grams = new Grams(machine);
    for (const from of [0, 32]) {
      const part = x.slice(from * width, (from + (from === 0 ? 32 : 64)) * width);
      for (const module of ['q', 'k']) await grams.add({ module, rows: part.length / width, x: part });
    }
    return grams.all;
  }

  test('the sums are of all rows, once for layers of one input', async () => {
    const x = inputs(rows, width);
    const all = await gramOf(x);
    expect(all.map(({ modules }) => modules)).toEqual([['q', 'k']]);
    for (const [i, j] of [
      [0, 0],
      [3, 79],
      [79, 3],
      [40, 41],
    ] as const) {
      const sum = Array.from({ length: rows }, (_, row) => x[row * width + i]! * x[row * width + j]!).reduce(
        (a, b) => a + b,
        0,
      );
      expect(all[0]!.sums[i * width + j]).toBeCloseTo(sum, 3);
    }
  });

  test('the factors multiply to what was factored', async () => {
    const [{ sums }] = (await gramOf(inputs(rows, width))) as unknown as readonly [Gram];
    sums.fill(0, 5 * width, 6 * width); // a feature that nothing goes into
    for (let i = 0; i < width; i++) sums[i * width + 5] = 0;
    const { feedback, importance, order } = await factorize(sums, width, block, machine);
    const place = (i: number) => order[Math.floor(i / block)]! * block + (i % block);
    const wanted = (i: number, j: number) => (i === j ? 1 : SHRINK) * sums[place(i) * width + place(j)]!;
    // D of each block: what is left of H when later blocks are taken away.
    const left = Float64Array.from(sums, (_, at) => wanted(Math.floor(at / width), at % width));
    for (let from = width - block; from >= 0; from -= block) {
      for (let i = from; i < from + block; i++)
        expect(Math.abs(importance[place(i)]! - left[i * width + i]!)).toBeLessThan(1e-3 * (1 + wanted(i, i)));
      const d = (k: number, l: number) => left[k * width + l]!;
      const before = left.slice();
      for (let i = 0; i < from; i++)
        for (let j = from; j < from + block; j++) {
          // A D is the column of what is left.
          let sum = 0;
          for (let k = from; k < from + block; k++) sum += feedback[i * width + k]! * d(k, j);
          expect(Math.abs(sum - before[i * width + j]!)).toBeLessThan(
            1e-3 * (1 + Math.sqrt(wanted(i, i) * wanted(j, j))),
          );
        }
      for (let i = 0; i < from; i++)
        for (let j = 0; j < from; j++)
          for (let k = from; k < from + block; k++)
            left[i * width + j]! -= feedback[i * width + k]! * before[k * width + j]!;
    }
    for (let i = 0; i < width; i++)
      for (let j = 0; j < width; j++)
        if (Math.floor(i / block) >= Math.floor(j / block)) expect(feedback[i * width + j]).toBe(0);
  });

  test('a factorization stops soon when it is aborted, and lets others have their turn', async () => {
    const [wide, stop] = [1024, new AbortController()];
    const sums = new Float32Array(wide * wide);
    for (let i = 0; i < wide; i++) sums[i * wide + i] = 1;
    setImmediate(() => stop.abort());
    // No product is begun before the turn in which it is aborted.
    const backend = new Proxy(machine.backend, { get: (_, operation) => expect.unreachable(String(operation)) });
    const aborted = await failure(() => factorize(sums, wide, 512, { ...machine, backend, signal: stop.signal }));
    expect(aborted.name).toBe('AbortError');
  });

  test('what rounding does to outputs becomes less', async () => {
    const x = inputs(rows, width);
    const [{ sums }] = (await gramOf(x)) as unknown as readonly [Gram];
    const factor = await factorize(sums, width, block, machine);
    const data = randomWeights(24 * width, 9);
    const config = { nbits: 2, groupSize: block, solver: 'joint' } as const;
    const outputError = async (from: Float32Array, importance: Float32Array) => {
      const weight = { data: from, dtype: 'float32', shape: [24, width] } as const;
      const got = await dequantize(await quantize(weight, config, { importance }));
      let total = 0;
      for (let row = 0; row < rows; row++)
        for (let out = 0; out < 24; out++) {
          let sum = 0;
          for (let i = 0; i < width; i++) sum += x[row * width + i]! * (got[out * width + i]! - data[out * width + i]!);
          total += sum * sum;
        }
      return total;
    };
    const diagonal = Float32Array.from({ length: width }, (_, i) => sums[i * width + i]!);
    const [plain, fed] = [
      await outputError(data, diagonal),
      await outputError(await feedBack(data, factor, config, machine), factor.importance),
    ];
    expect(fed).toBeLessThan(0.8 * plain);
  });
});

test('a graph has one matrix for all that goes into the same layers, until they have seen the last of it', async () => {
  const machine = { backend: openBackend('js'), threads: 1, signal: undefined };
  const tap = (value: string, ...layers: string[]) => ({ value, layers, inFeatures: 4 });
  const taps = [tap('a', 'q', 'k'), tap('b', 'k', 'q'), tap('c', 'q'), tap('d', 'q', 'k')];
  const sets = new GramSets({ given: [taps[0]!], parts: [{ taps: taps.slice(1) }] as never }, machine);
  const steps: unknown[] = [];
  for (const one of taps) {
    await sets.add(one, Float32Array.of(1, 0, 0, 2));
    const ready = sets.ready([one]).map(({ names, width, sums }) => [names, width, sums[3]]);
    steps.push([sets.size, ready]);
    sets.release();
  }
  // Products of 1 and 2: four go into q, three into k.
  const last = [
    [['q'], 4, 8],
    [['k'], 4, 6],
  ];
  expect(steps).toEqual([
    [1, []],
    [1, []],
    [2, []],
    [2, last],
  ]);
  expect(sets.size).toBe(0);
});

describe('layers without error feedback', () => {
  const machine = { backend: openBackend('js'), threads: 1, signal: undefined };
  const width = 64;
  const layer = (name: string, groupSize: number, embedding: boolean) => {
    const weight = { name, type: { float: 'float32' } };
    const site = { name, weight, shape: [8, width], stored: 'out-in', embedding };
    return { site, form: { config: { groupSize, axis: 1 }, tails: true } } as unknown as PlannedLayer;
  };
  const place = { source: {} as TensorSource, refined: {} as Overlaid, machine };

  test('count what goes into them: a table that is looked up in, too, and one group a row', async () => {
    const sums = new Float32Array(width * width).fill(-1);
    for (let i = 0; i < width; i++) sums[i * width + i] = i + 1;
    const squares = Float32Array.from({ length: width }, (_, i) => i + 1);
    const layers = [layer('tied', 32, true), layer('whole', width, false)];
    expect(await refineLayers(layers, { width, sums }, place)).toEqual([
      { name: 'tied', importance: squares, fed: false },
      { name: 'whole', importance: squares, fed: false },
    ]);
  });

  test.each([Number.NaN, 1e25])('are all that %d goes into', async (bad) => {
    const x = randomWeights(4 * width, 1);
    x[5] = bad;
    const sums = new Float32Array(width * width);
    await addProducts(sums, x, 4, machine);
    expect(await refineLayers([layer('fit', 32, false)], { width, sums }, place)).toEqual([]);
  });
});

describe('quantizeModel with refine', () => {
  const few = { nbits: 2, groupSize: 32, refine: true, tokens: 128 } as const;
  const weightsOf = (folder: string) => readFileSync(join(folder, 'model.safetensors'));

  test('gives the same bytes for the same seed and any threads, others than without, and leaves no file', async () => {
    const folder = join(scratch, 'same');
    mkdirSync(folder);
    const made: Buffer[] = [];
    for (const threads of [1, 2, 7]) {
      const out = join(folder, `t${threads}`);
      const report = await quantizeModel(SHIPPED, out, { ...few, threads });
      expect(report.importance).toBe('own');
      expect(report.notes.join()).toMatch(/error feedback/);
      made.push(weightsOf(out));
    }
    expectSameBytes(made[1]!, made[0]!);
    expectSameBytes(made[2]!, made[0]!);
    await quantizeModel(SHIPPED, join(folder, 'plain'), { ...few, refine: false, importance: 'own' });
    expect(weightsOf(join(folder, 'plain')).equals(made[0]!)).toBe(false);
    expect(readdirSync(folder).sort()).toEqual(['plain', 't1', 't2', 't7']);
  }, 120_000);

  test('weighs errors of a tied head as without', async () => {
    const folder = join(scratch, 'tied');
    mkdirSync(folder);
    const model = narrowModel(folder, 'model');
    const tables = [true, false].map(async (refine) => {
      const out = join(folder, String(refine));
      await quantizeModel(model, out, { ...few, importance: 'random', embeddings: 4, refine });
      const tensors = [...readBack(out)].filter(([name]) => name.startsWith('model.embed_tokens.'));
      return tensors.map(([name, { bytes }]) => [name, Buffer.from(bytes).toString('hex')]);
    });
    const [refined, plain] = await Promise.all(tables);
    expect(plain!.length).toBeGreaterThan(2);
    expect(refined).toEqual(plain);
  });

  test('stops soon when it is aborted, and leaves nothing', async () => {
    const folder = join(scratch, 'aborted');
    mkdirSync(folder);
    const stop = new AbortController();
    const onProgress = ({ importance }: { importance?: { phase: string; done: number } }) => {
      if (importance?.phase === 'reading' && importance.done > 0) stop.abort();
    };
    const options = { ...few, signal: stop.signal, onProgress };
    expect((await failure(() => quantizeModel(SHIPPED, join(folder, 'q'), options))).name).toBe('AbortError');
    expect(readdirSync(folder)).toEqual([]);
  });

  test('refuses options that are chosen for a whole matrix', async () => {
    const folder = join(scratch, 'auto');
    for (const options of [
      { lpNorm: 'auto', solver: 'joint' },
      { overrides: { '*.down_proj': { iterations: 'auto' } } },
    ] as const)
      expect(
        (await failure(() => quantizeModel(SHIPPED, folder, { ...few, ...options, dryRun: true }))).message,
      ).toMatch(/Expected (lpNorm|iterations) to be a number with refine, got "?auto/);
  });

  test('asks for room for the weights that wait, too, before the model reads', async () => {
    const output = join(scratch, 'room');
    const { totals } = await quantizeModel(SHIPPED, output, { ...few, dryRun: true });
    const statfs = vi.spyOn(promises, 'statfs');
    statfs.mockResolvedValue({ bavail: totals.bytesAfter, blocks: 2 * totals.bytesAfter, bsize: 1 } as never);
    try {
      const onProgress = () => expect.unreachable();
      const error = await failure(() => quantizeModel(SHIPPED, output, { ...few, onProgress }));
      expect(error).toMatchObject({ code: 'ERR_IO', message: expect.stringMatching(/needs .* free/) });
    } finally {
      statfs.mockRestore();
    }
  });

  test.skipIf(process.platform === 'win32')(
    'weights that wait have no name that a killed run could leave',
    async () => {
      const folder = join(scratch, 'nameless');
      mkdirSync(folder);
      const overlaid = await Overlaid.over({} as TensorSource, folder);
      const [entry, read] = [{ name: 'a' } as TensorEntry, new Uint8Array(2)];
      await overlaid.put(entry, Uint8Array.of(1, 2, 3));
      expect(readdirSync(folder)).toEqual([]);
      await overlaid.read(entry, 1, read);
      expect([...read]).toEqual([2, 3]);
      await overlaid.close();
    },
  );

  test('refuses a model that does not run, in a dry run, too', async () => {
    const folder = modelFolder([{ 'h.0.mlp.c_fc.weight': randomTensor([64, 64], 3) }], {
      config: '{"model_type": "gpt2"}',
    });
    for (const dryRun of [true, false]) {
      const error = await failure(() => quantizeModel(folder, join(scratch, 'runs'), { refine: true, dryRun }));
      expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringMatching(/error feedback/) });
    }
  });

  test('refuses formats that the input decides, too', async () => {
    const file = join(scratch, 'floats.gguf');
    await dequantizeModel(SHIPPED, file);
    for (const dryRun of [true, false]) {
      const error = await failure(() => quantizeModel(file, join(scratch, 'q.gguf'), { refine: true, dryRun }));
      expect(error.message).toMatch(/no error feedback \(--refine\) for ggml/);
    }
  });

  test('says which importance and formats it cannot have', async () => {
    for (const importance of ['none', 'statistics.safetensors'])
      expect((await failure(() => quantizeModel(SHIPPED, scratch, { ...few, importance }))).message).toMatch(
        /importance to be auto, random, own or text:<file> with refine/,
      );
    const other = await failure(() => quantizeModel(SHIPPED, scratch, { ...few, groupSize: 128, nbits: 4, to: 'awq' }));
    expect(other.message).toMatch(/no other format than hqq and onnx with refine/);
    const args = ['quantize', SHIPPED, '--out', join(scratch, 'cli'), '--refine', '--dry-run', '--json'];
    const { stdout } = await hqq(args, {});
    expect(JSON.parse(stdout)).toMatchObject({ importance: 'own' });
  });
});
