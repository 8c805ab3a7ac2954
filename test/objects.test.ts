import { inspect } from 'node:util';
import { MessageChannel } from 'node:worker_threads';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { QuantizedLinear } from '../lib/compute/linear.js';
import type { ForwardOptions } from '../lib/compute/linear-options.js';
import { dequantizeSync, quantizeSync, unpack } from '../lib/compute/quantize.js';
import type { QuantizedTensor, Weight } from '../lib/matrix/weight.js';
import { randomWeights } from './support/checkpoints.js';

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
