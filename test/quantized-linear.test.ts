import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { describe, expect, test, vi } from 'vitest';
import { activeBackend } from '../lib/backend/index.js';
import { QuantizedLinear } from '../lib/compute/linear.js';
import { dequantizeSync, quantize, quantizeSync } from '../lib/compute/quantize.js';
import type { QuantizedTensor, Weight } from '../lib/matrix/weight.js';
import { openModel } from '../lib/models/model.js';
import { quantizeModel } from '../lib/models/quantize/quantize.js';
import { runFixture } from './child.js';
import { expectSameBytes } from './support/bytes.js';
import { writeLlama } from './support/models.js';
import { racesOf } from './support/share.js';

// The class: what it takes, refuses and says, and many calls at once. test/linear.test.ts has the numbers.

const native = activeBackend().name === 'native';

function weightOf(rows: number, cols: number, seed = 1): Weight {
  const data = Float32Array.from(
    { length: rows * cols },
    (_, i) => Math.sin(i * 1.7 + seed) * Math.sin(i * 0.013 * seed) * 0.05,
  );
  return { data, dtype: 'float32', shape: [rows, cols] };
}

const layerOf = (rows: number, cols: number, options?: ConstructorParameters<typeof QuantizedLinear>[1], seed = 1) =>
  new QuantizedLinear(quantizeSync(weightOf(rows, cols, seed)), options);
const inputOf = (length: number) => Float32Array.from({ length }, (_, i) => Math.cos(i * i));

describe('a layer', () => {
  test('says what it is', () => {
    const layer = layerOf(96, 128, { activations: 'int8', bias: new Float32Array(96) });
    expect(layer).toMatchObject({ inFeatures: 128, outFeatures: 96, path: 'fused', activations: 'int8' });
    const { isa, dot } = activeBackend();
    const extended = {
      vnni: `${isa}-vnni`,
      sdot: 'neon-sdot',
      i8mm: 'neon-i8mm',
      maddubs: isa,
      smull: 'neon',
      plain: isa,
    }[dot];
    expect(layer.kernel).toBe(`${extended}/int8/4bit_u8/g64`);
    expect(layer.memoryUsage).toBe(96 * 64 + 96 * 2 * 2 * 4 + 96 * 4); // codes, two groups a row, bias
    const tiled = new QuantizedLinear(quantizeSync(weightOf(64, 64), { axis: 0 }), { activations: 'int8' });
    expect(tiled).toMatchObject({ path: 'tiled', kernel: `${isa}/float32/4bit_u8/g64`, memoryUsage: 64 * 32 + 64 * 8 });
  });

  test('multiplies the same with and without blocking, into arrays of its own and of the caller', async () => {
    for (const q of [quantizeSync(weightOf(96, 128)), quantizeSync(weightOf(96, 128), { axis: 0 })]) {
      const layer = new QuantizedLinear(q, { bias: inputOf(96) });
      const x = inputOf(3 * 128);
      const y = layer.forwardSync(x);
      expect(y).toHaveLength(3 * 96);
      expectSameBytes(await layer.forward(x), y);
      const out = new Float32Array(3 * 96);
      expect(layer.forwardSync(x, { out, threads: 1 })).toBe(out);
      expectSameBytes(out, y);
      expect(await layer.forward(x, { out: out.fill(0), threads: 3 })).toBe(out);
      expectSameBytes(out, y);
      expectSameBytes(await layer.dequantize(), dequantizeSync(q));
    }
  });

  test('comes from a weight', async () => {
    const weight = weightOf(64, 128);
    const bias = inputOf(64);
    const layer = await QuantizedLinear.fromWeight(weight, { nbits: 3 }, { bias, activations: 'int8', threads: 2 });
    const x = inputOf(128);
    const same = new QuantizedLinear(quantizeSync(weight, { nbits: 3 }), { bias, activations: 'int8' });
    expectSameBytes(layer.forwardSync(x), same.forwardSync(x));
    await expect(QuantizedLinear.fromWeight(weight, {}, { signal: AbortSignal.abort('enough') })).rejects.toBe(
      'enough',
    );
    await expect(QuantizedLinear.fromWeight(weight, {}, { bias: inputOf(63) })).rejects.toThrow(
      'Expected bias to have 64 elements',
    );
  });

  describe('create', () => {
    // Panels; groups that are no parts of rows; groups across rows.
    const tensors = [
      quantizeSync(weightOf(48, 128), { nbits: 3 }),
      quantizeSync(weightOf(64, 64), { axis: 0 }),
      quantizeSync(weightOf(64, 48), { groupSize: 64 }),
    ];
    test.each(tensors)('makes what the constructor makes (%#)', async (q) => {
      const bias = inputOf(q.shape[0]);
      for (const activations of ['float32', 'int8'] as const) {
        const layer = await QuantizedLinear.create(q, { bias, activations, threads: 2 });
        const same = new QuantizedLinear(q, { bias, activations });
        const x = inputOf(3 * q.shape[1]);
        expectSameBytes(layer.forwardSync(x), same.forwardSync(x));
        expect({ ...layer }).toEqual({ ...same });
      }
    });

    test('takes its arguments as they were when it was called', async () => {
      const q = { ...tensors[0]!, shape: [48, 128] as [number, number] };
      const bias = inputOf(48);
      const expected = new QuantizedLinear(q, { bias }).forwardSync(inputOf(128));
      const pending = QuantizedLinear.create(q, { bias });
      q.shape.fill(1);
      Object.assign(q, { packing: 'none', groupSize: 7 });
      bias.fill(9);
      expectSameBytes((await pending).forwardSync(inputOf(128)), expected);
    });

    test.each(tensors)('holds the arrays of a tensor from the call on (%#)', async (tensor) => {
      for (const name of ['packed', 'scale', 'zero'] as const) {
        const q = { ...tensor, packed: tensor.packed.slice(), scale: tensor.scale.slice(), zero: tensor.zero.slice() };
        const pending = QuantizedLinear.create(q as QuantizedTensor);
        const { buffer } = q[name];
        try {
          structuredClone(buffer, { transfer: [buffer as ArrayBuffer] }); // Node 20 ignores it, newer versions throw
        } catch (error) {
          expect(error).toMatchObject({ name: 'DataCloneError' });
        }
        const x = inputOf(tensor.shape[1]);
        expectSameBytes((await pending).forwardSync(x), new QuantizedLinear(tensor).forwardSync(x));
      }
    });

    test('allocates nothing for options that it refuses', async () => {
      const [q] = tensors as [QuantizedTensor];
      const constructions = vi.spyOn(globalThis, 'Uint8Array');
      try {
        for (const options of [{ activations: 'int4' as never }, { bias: inputOf(5) }]) {
          await expect(QuantizedLinear.create(q, options)).rejects.toThrow('Expected');
          expect(() => new QuantizedLinear(q, options)).toThrow('Expected');
        }
        expect(constructions).not.toHaveBeenCalled();
      } finally {
        constructions.mockRestore();
      }
    });

    test('refuses what the constructor refuses, and options of elsewhere', async () => {
      const [q] = tensors as [QuantizedTensor];
      const wrong = (given: unknown, options?: unknown) => QuantizedLinear.create(given as never, options as never);
      await expect(wrong(undefined)).rejects.toThrow('Expected the quantized tensor to be an object, got undefined.');
      await expect(wrong({ ...q, axis: 2 })).rejects.toThrow('Expected axis to be 0 or 1, got 2.');
      await expect(wrong(q, null)).rejects.toThrow('Expected the options of a layer to be an object, got null.');
      await expect(wrong(q, { activation: 'int8' })).rejects.toThrow('Did you mean "activations"?');
      await expect(wrong(q, { activations: 'int4' })).rejects.toThrow('Expected activations to be one of');
      await expect(wrong(q, { threads: 0 })).rejects.toThrow('Expected threads to be an integer in [1, 256], got 0.');
      await expect(wrong(q, { bias: inputOf(5) })).rejects.toThrow('Expected bias to have 48 elements');
      await expect(wrong(q, { signal: AbortSignal.abort('enough') })).rejects.toBe('enough');
    });
  });

  test('keeps a bias of its own', () => {
    const bias = inputOf(64);
    const layer = layerOf(64, 64, { bias });
    const y = layer.forwardSync(inputOf(64));
    bias.fill(100);
    expectSameBytes(layer.forwardSync(inputOf(64)), y);
  });

  test('multiplies several weights of one input', async () => {
    const layers = [
      layerOf(96, 128),
      layerOf(32, 128, {}, 2),
      new QuantizedLinear(quantizeSync(weightOf(64, 128, 3), { axis: 0 })),
    ];
    layers.push(
      new QuantizedLinear(quantizeSync(weightOf(64, 128, 4), { nbits: 3, groupSize: 32 }), { bias: inputOf(64) }),
    );
    for (const batch of [1, 5]) {
      const x = inputOf(batch * 128);
      const together = await QuantizedLinear.forwardMany(layers, x, { threads: 2 });
      together.forEach((y, i) => expectSameBytes(y, layers[i]!.forwardSync(x)));
    }
    expect(await QuantizedLinear.forwardMany([], inputOf(1))).toEqual([]);
  });
});

test('comes from a checkpoint, by name', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'hqq-test-'));
  try {
    await quantizeModel(writeLlama(join(folder, 'float')), join(folder, 'quantized'));
    const model = await openModel(join(folder, 'quantized'));
    const name = 'model.layers.0.mlp.up_proj.weight';
    const layer = model.linear(name, { activations: 'int8' });
    expect(layer).toMatchObject({ outFeatures: 128, inFeatures: 64, path: 'fused', activations: 'int8' });
    expectSameBytes(await layer.dequantize(), model.tensor(name));
    expect(() => model.linear('model.norm.weight')).toThrow('quantized layer');
    await model.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe('refuses', () => {
  const layer = layerOf(64, 64);
  const x = inputOf(64);
  test.each<[string, () => unknown, string]>([
    [
      'x of another length',
      () => layer.forwardSync(inputOf(65)),
      'Expected x to have rows of 64 elements (inFeatures), got 65.',
    ],
    [
      'no x',
      () => layer.forwardSync(new Float32Array(0)),
      'Expected x to have rows of 64 elements (inFeatures), got 0.',
    ],
    [
      'x of another type',
      () => layer.forwardSync(new Float64Array(64) as never),
      'Expected x to be a Float32Array, got Float64Array(64). Convert it: Float32Array.from(x).',
    ],
    [
      'out of another length',
      () => layer.forwardSync(x, { out: new Float32Array(63) }),
      'Expected out to have 64 elements for 1 x 64 results, got 63.',
    ],
    ['out that is x', () => layer.forwardSync(x, { out: x }), 'Expected out to be memory of its own, got some of x.'],
    [
      'an option that does not exist',
      () => layer.forwardSync(x, { thread: 1 } as never),
      'Unknown option "thread". Did you mean "threads"?',
    ],
    [
      'threads that are none',
      () => layer.forwardSync(x, { threads: 0 }),
      'Expected threads to be an integer in [1, 256], got 0.',
    ],
    [
      'activations that do not exist',
      () => layerOf(64, 64, { activations: 'int4' as never }),
      'Expected activations to be one of float32, int8, got "int4".',
    ],
    [
      'a bias of another length',
      () => layerOf(64, 64, { bias: inputOf(3) }),
      'Expected bias to have 64 elements for 64 outputs, got 3.',
    ],
    [
      'a promise of a tensor',
      () => new QuantizedLinear(quantize({ data: inputOf(64), shape: [8, 8] }) as never),
      'Expected the quantized tensor to be an object, got a Promise: await it.',
    ],
    [
      'a weight that is not quantized',
      () => new QuantizedLinear({ data: inputOf(64), shape: [8, 8] } as never),
      'Expected a quantized tensor, got a weight, { data, shape }. Quantize it first: await quantize(weight).',
    ],
    ['no tensor', () => new QuantizedLinear(null as never), 'Expected the quantized tensor to be an object, got null.'],
  ])('%s', async (_, call, message) => {
    expect(call).toThrow(
      expect.objectContaining({ name: 'HqqError', message: expect.stringContaining(message) as string }),
    );
  });

  test('memory that overlaps x, and layers that do not belong together', async () => {
    const memory = new Float32Array(100);
    expect(() => layer.forwardSync(memory.subarray(0, 64), { out: memory.subarray(36, 100) })).toThrow(
      'memory of its own',
    );
    await expect(QuantizedLinear.forwardMany([layer, layerOf(64, 128)], x)).rejects.toThrow(
      'Expected layers to have the inFeatures and activations of the first, 64 and float32, got 128 and float32.',
    );
    await expect(QuantizedLinear.forwardMany(layer as never, x)).rejects.toThrow('Expected layers to be a list');
  });
});

test('int8 is within 1 % on the layers of a trained model, relative to the result', async () => {
  const model = await openModel(fileURLToPath(new URL('../examples/models/llama-2.3m-books', import.meta.url)));
  const measured: [string, number][] = [];
  for (const name of model.names.filter((candidate) => /proj\.weight$/.test(candidate))) {
    const [out, cols] = model.shape(name) as [number, number];
    const q = quantizeSync(
      { data: model.tensor(name), dtype: 'float32', shape: [out, cols] },
      { groupSize: cols % 64 === 0 ? 64 : 32 },
    );
    const x = Float32Array.from(
      { length: 16 * cols },
      (_, i) => Math.sin(i * i * 0.37) + Math.sin(i * 1.3) + (i % 97 === 0 ? 5 : 0),
    );
    const exact = new QuantizedLinear(q).forwardSync(x);
    const layer = new QuantizedLinear(q, { activations: 'int8' });
    expect(layer.path).toBe('fused');
    const rounded = layer.forwardSync(x);
    const square = (values: Float32Array) => values.reduce((sum, v) => sum + v * v, 0);
    measured.push([name, Math.sqrt(square(exact.map((v, i) => v - rounded[i]!)) / square(exact))]);
  }
  await model.close();
  expect(measured.length).toBeGreaterThan(10);
  const errors = measured.map(([, error]) => error).sort((a, b) => a - b);
  console.log(
    `int8 against float32: ${errors[0]!.toFixed(5)} to ${errors.at(-1)!.toFixed(5)}, median ${errors[errors.length >> 1]!.toFixed(5)}`,
  );
  for (const [name, error] of measured) expect(error, name).toBeLessThan(0.01);
});

describe('many calls', () => {
  test('1,000 at once over 20 layers give what each gives alone', async () => {
    const layers = Array.from({ length: 20 }, (_, i) =>
      layerOf(64 + 16 * (i % 3), 128, { activations: i % 2 ? 'int8' : 'float32' }, i + 1),
    );
    const inputs = layers.map((_, i) => inputOf(128 * (1 + (i % 4))));
    const expected = layers.map((layer, i) => layer.forwardSync(inputs[i]!));
    const calls = Array.from({ length: 1000 }, (_, i) => layers[i % 20]!.forward(inputs[i % 20]!));
    (await Promise.all(calls)).forEach((y, i) => expectSameBytes(y, expected[i % 20]!));
  });

  test('half of them aborted: the others are as they should be', async () => {
    const layer = layerOf(256, 256);
    const x = inputOf(256 * 8);
    const expected = layer.forwardSync(x);
    const controllers = Array.from({ length: 100 }, () => new AbortController());
    const calls = controllers.map(({ signal }) => layer.forward(x, { signal }));
    controllers.forEach((controller, i) => i % 2 === 0 && controller.abort(i));
    (await Promise.allSettled(calls)).forEach((outcome, i) => {
      if (i % 2 === 0) expect(outcome).toMatchObject({ status: 'rejected', reason: i });
      else if (outcome.status === 'fulfilled') expectSameBytes(outcome.value, expected);
      else expect.fail(String(outcome.reason));
    });
  });

  test.runIf(native)('an abort in the middle of a long one comes soon', async () => {
    const layer = layerOf(1024, 1024);
    const controller = new AbortController();
    const pending = layer.forward(inputOf(1024 * 4096), { signal: controller.signal, threads: 1 });
    const outcome = expect(pending).rejects.toMatchObject({ name: 'AbortError' });
    await new Promise((resolve) => setTimeout(resolve, 5));
    const started = performance.now();
    controller.abort();
    await outcome;
    expect(performance.now() - started).toBeLessThan(250); // milliseconds of work, on a machine that may be busy
  });

  test.runIf(native)('the event loop goes on while batches of 512 run', async () => {
    const layer = layerOf(1024, 1024, { activations: 'int8' });
    const x = inputOf(1024 * 512);
    await layer.forward(x);
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    await Promise.all(Array.from({ length: 4 }, () => layer.forward(x, { threads: 1 })));
    delay.disable();
    expect(delay.percentile(50) / 1e6).toBeLessThan(20); // 1 ms of its own; the rest is what a busy machine adds
  });

  test('memory does not grow', async () => {
    const { status, stdout, stderr } = await runFixture('linear-memory.mjs', [
      process.env.CI || !native ? '10000' : '100000',
    ]);
    expect(status, stderr).toBe(0);
    expect(Number(/grew (-?\d+)/.exec(stdout)?.[1])).toBeLessThan(40);
  });

  test('workers are terminated while they multiply', async () => {
    const { status, signal, stdout, stderr } = await runFixture('linear-workers.mjs', [String(racesOf(15))]);
    expect({ status, signal }, stderr).toEqual({ status: 0, signal: null });
    expect(stdout).toContain('alive');
  });
});
