import { inspect } from 'node:util';
import { MessageChannel } from 'node:worker_threads';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { QuantizedLinear } from '../lib/compute/linear.js';
import type { ForwardOptions } from '../lib/compute/linear-options.js';
import { dequantizeSync, quantizeSync, unpack } from '../lib/compute/quantize.js';
import type { QuantizedTensor, Weight } from '../lib/matrix/weight.js';
import { type Model, openModel } from '../lib/models/model.js';
import { quantizeModel } from '../lib/models/quantize/quantize.js';
import { loadLanguageModel } from '../lib/runtime/load.js';
import { freshPath, llama, modelFolder, randomWeights } from './support/checkpoints.js';
import { SHIPPED } from './support/language-models.js';

// What the package's objects are to the language: shown, spread, compared, cloned, posted.

const weight: Weight = { data: randomWeights(64 * 128, 1), shape: [64, 128] };

describe('a quantized tensor', () => {
  const q = quantizeSync(weight);

  test('is shown in a line', () => {
    const shown =
      /^QuantizedTensor \{ 64 x 128, 4-bit, group 64, axis 1, 4bit_u8 4\.10 kB, scale and zero 1\.02 kB, error \d\.\d\d % \}$/;
    expect(inspect(q)).toMatch(shown);
    expect(inspect({ q }).split('\n')).toHaveLength(3);
    const adapted = quantizeSync({ data: randomWeights(3 * 64, 1), shape: [3, 64] });
    expect(inspect(adapted)).toContain(', adapted (group size 32: 3 groups of 64 do not pack into 4bit_u8) }');
  });

  test('and what is made of it have arrays that can be transferred', () => {
    expectTypeOf(q.packed).toEqualTypeOf<Uint8Array<ArrayBuffer> | Int32Array<ArrayBuffer>>();
    expectTypeOf(q.scale).toEqualTypeOf<Float32Array<ArrayBuffer>>();
    expectTypeOf(dequantizeSync(q)).toEqualTypeOf<Float32Array<ArrayBuffer>>();
    expectTypeOf(dequantizeSync(q, { dtype: 'bfloat16' })).toEqualTypeOf<Uint16Array<ArrayBuffer>>();
    expectTypeOf(unpack(q)).toEqualTypeOf<Uint8Array<ArrayBuffer>>();
    const shared = new Uint16Array(new SharedArrayBuffer(2 * 64 * 128));
    const into = dequantizeSync(q, { dtype: 'float16', out: shared });
    expectTypeOf(into).toEqualTypeOf<Uint16Array<SharedArrayBuffer>>();
    expect(into).toBe(shared);
    const inShared = new Float32Array(new SharedArrayBuffer(q.scale.byteLength));
    inShared.set(q.scale);
    expect(dequantizeSync({ ...q, scale: inShared })).toEqual(dequantizeSync(q)); // what calls take may be shared
  });

  test('has the properties that are documented, and no other', () => {
    const keys = ['nbits', 'groupSize', 'axis', 'shape', 'packing', 'packed', 'scale', 'zero', 'stats'];
    expect(Object.keys(q)).toEqual(keys);
    expect(Reflect.ownKeys({ ...q })).toEqual(keys);
    expect(Object.isFrozen(q)).toBe(true);
  });

  test('can be cloned and posted, and is a tensor still', async () => {
    const clone = structuredClone(q);
    expect(clone).toEqual(q);
    const { port1, port2 } = new MessageChannel();
    const posted = new Promise<QuantizedTensor>((resolve) => port2.once('message', resolve));
    port1.postMessage(q);
    for (const copy of [clone, await posted, { ...q }]) {
      expect(dequantizeSync(copy)).toEqual(dequantizeSync(q));
      const x = randomWeights(128, 2);
      expect(new QuantizedLinear(copy).forwardSync(x)).toEqual(new QuantizedLinear(q).forwardSync(x));
    }
    port1.close();
  });
});

describe('a layer', () => {
  const layer = new QuantizedLinear(quantizeSync(weight), { bias: new Float32Array(64) });

  test('is shown in a line', () => {
    expect(inspect(layer)).toMatch(
      /^QuantizedLinear \{ 128 -> 64, bias, \w+\/float32\/4bit_u8\/g64, fused, [\d.]+ kB \}$/,
    );
  });

  test('cannot be cloned or posted, and says what to do', () => {
    const refusal = expect.objectContaining({
      name: 'DataCloneError',
      message: expect.stringMatching(/A QuantizedLinear, which stays in its thread: post the QuantizedTensor.*cloned/),
    });
    expect(() => structuredClone(layer)).toThrow(refusal);
    expect(() => structuredClone({ layers: [layer] })).toThrow(refusal);
    const { port1 } = new MessageChannel();
    expect(() => port1.postMessage(layer)).toThrow(refusal);
    port1.close();
  });

  test('gives arrays that can be transferred', async () => {
    const x = randomWeights(128, 2);
    const shared = new Float32Array(new SharedArrayBuffer(4 * 64));
    expectTypeOf(await layer.forward(x)).toEqualTypeOf<Float32Array<ArrayBuffer>>();
    expectTypeOf(layer.forwardSync(x, { threads: 1 })).toEqualTypeOf<Float32Array<ArrayBuffer>>();
    expectTypeOf(await layer.forward(x, { out: shared })).toEqualTypeOf<Float32Array<SharedArrayBuffer>>();
    expectTypeOf(await QuantizedLinear.forwardMany([layer], x)).toEqualTypeOf<Float32Array<ArrayBuffer>[]>();
    expectTypeOf(await layer.dequantize()).toEqualTypeOf<Float32Array<ArrayBuffer>>();
    const options: ForwardOptions = {};
    expectTypeOf(layer.forwardSync(x, options)).toEqualTypeOf<Float32Array>();
    expect(layer.forwardSync(x, { out: shared })).toBe(shared);
    expect(structuredClone(layer.forwardSync(x), { transfer: [layer.forwardSync(x).buffer] })).toHaveLength(64);
  });

  test('is JSON all the same: what it says of itself', () => {
    expect(JSON.parse(JSON.stringify(layer))).toMatchObject({ inFeatures: 128, outFeatures: 64, path: 'fused' });
  });
});

describe('a model', () => {
  const open = async () => {
    const path = freshPath();
    await quantizeModel(modelFolder([llama()]), path);
    return openModel(path);
  };
  const NAME = 'model.layers.0.self_attn.q_proj.weight';

  test('is shown in a line', async () => {
    const model = await open();
    expect(inspect(model)).toBe(`Model { ${model.path}, ${model.tensors.length} tensors, 8 quantized }`);
    await model.close();
  });

  test('gives arrays that can be transferred', async () => {
    const model = await open();
    expectTypeOf(model.tensor(NAME)).toEqualTypeOf<Float32Array<ArrayBuffer>>();
    expectTypeOf(await model.load(NAME)).toEqualTypeOf<Float32Array<ArrayBuffer>>();
    expectTypeOf(model.bias(NAME)).toEqualTypeOf<Float32Array<ArrayBuffer> | undefined>();
    await model.close();
  });

  test('cannot be cloned', async () => {
    const model = await open();
    expect(() => structuredClone(model)).toThrow(
      'A Model, which stays in its thread: post its path, and open it there,',
    );
    await model.close();
  });

  test('has an error of its own after close, whoever reads', async () => {
    const model = await open();
    const reading = model.load(NAME);
    await model.close();
    expect((await reading).length).toBeGreaterThan(0); // what was under way ends as it would
    await model.close();
    const closed = expect.objectContaining({ code: 'ERR_CLOSED', message: expect.stringContaining('to be open, got') });
    const calls: readonly ((m: Model) => unknown)[] = [
      (m) => m.tensor(NAME),
      (m) => m.tensor('model.norm.weight'),
      (m) => m.load(NAME),
      (m) => m.quantized(NAME),
      (m) => m.linear(NAME),
    ];
    for (const call of calls) await expect((async () => call(model))()).rejects.toThrow(closed);
    expect(model.has(NAME)).toBe(true); // what it knows it knows
  });

  test('of a language is shown in a line, and not posted', async () => {
    const language = await loadLanguageModel(SHIPPED);
    expect(inspect(language)).toBe(
      'LanguageModel { LlamaForCausalLM, 3 blocks of 256, vocabulary 2,048, context 128, 9.18 MB }',
    );
    expect(() => structuredClone(language)).toThrow('A LanguageModel, which stays in its thread');
    await language.close();
  });

  test.each(['asyncDispose', 'dispose'] as const)('is closed by Symbol.%s, where there is one', async (name) => {
    const symbol = (Symbol as Partial<Record<typeof name, symbol>>)[name];
    const [model, language] = [await open(), await loadLanguageModel(SHIPPED)];
    const closed = expect.objectContaining({ code: 'ERR_CLOSED' });
    for (const each of [model, language]) {
      const method = (each as unknown as Record<symbol, () => unknown>)[symbol as symbol];
      expect(typeof method).toBe(symbol === undefined ? 'undefined' : 'function'); // Node.js before 20.5 has neither
      const done = symbol === undefined ? each.close() : method!.call(each);
      expect(done instanceof Promise).toBe(name === 'asyncDispose' || symbol === undefined);
      await done;
    }
    await expect(model.load(NAME)).rejects.toThrow(closed);
    expect(() => language.createCache()).toThrow(closed);
  });
});
