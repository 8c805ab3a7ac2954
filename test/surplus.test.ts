import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import * as hqq from '../lib/index.js';
import * as js from '../lib/js.js';
import * as runtime from '../lib/runtime.js';
import { encode, freshPath, randomTensor, randomWeights } from './support/checkpoints.js';
import { SHIPPED } from './support/language-models.js';

// Arguments and options that are in the wrong place are told, not ignored.

const weight: hqq.Weight = { data: randomWeights(64 * 64, 1), dtype: 'float32', shape: [64, 64] };
const file = freshPath('in.safetensors');
fs.writeFileSync(file, encode({ 'a.weight': randomTensor([64, 64], 1) }));
const model = await hqq.openModel(file);
const languageModel = await runtime.loadLanguageModel(SHIPPED);
const source = await runtime.openBlockSource(SHIPPED);
const block = await source.block(0);

type Callable = (...args: unknown[]) => unknown;

/** The functions of an object, with those of its class that are documented. */
function functionsOf(name: string, holder: object, hidden: readonly string[] = []): [string, Callable][] {
  return Object.getOwnPropertyNames(holder)
    .filter((key) => !['length', 'name', 'prototype', 'constructor', ...hidden].includes(key))
    .flatMap((key): [string, Callable][] => {
      const { value } = Object.getOwnPropertyDescriptor(holder, key)!;
      return typeof value === 'function' ? [[`${name}.${key}`, value.bind(holder)]] : [];
    });
}

/** Every public function, method and constructor. */
function everything(name: string, entry: object): [string, Callable][] {
  return functionsOf(name, entry).flatMap(([label, call]): [string, Callable][] => {
    const original = (entry as Record<string, unknown>)[label.slice(name.length + 1)] as { prototype?: object };
    if (!/^\w+\.[A-Z]/.test(label)) return [[label, call]];
    if (original === hqq.HqqError) return []; // an Error, which takes what it is given
    return [
      [`new ${label}`, (...args) => Reflect.construct(original as never, args)],
      ...functionsOf(label, original, ['steps']),
      ...functionsOf(`${label}.prototype`, original.prototype!),
    ];
  });
}

const calls = [
  ...everything('hqq', { ...hqq }),
  ...everything('js', { ...js }),
  ...everything('runtime', { ...runtime }),
  ...functionsOf('model', Object.getPrototypeOf(model), ['loadInto', 'loadRows', 'loading', 'madeText', 'obstacle']),
  ...functionsOf('languageModel', Object.getPrototypeOf(languageModel), ['forwardEach', 'toolForm']),
  ...functionsOf('cache', Object.getPrototypeOf(languageModel.createCache()), [
    'adapt',
    'copyFrom',
    'extend',
    'fits',
    'goesOn',
    'layer',
    'prepared',
  ]),
  ...functionsOf('source', Object.getPrototypeOf(source)),
  ...functionsOf('block', Object.getPrototypeOf(block)),
  ...functionsOf('head', Object.getPrototypeOf(await source.head())),
];

describe('surplus arguments', () => {
  test('there are some to try', () => {
    const labels = calls.map(([label]) => label);
    expect(labels).toEqual(
      expect.arrayContaining([
        'hqq.quantizeModel',
        'js.quantizeSync',
        'new hqq.QuantizedLinear',
        'hqq.QuantizedLinear.forwardMany',
        'hqq.QuantizedLinear.prototype.forward',
        'model.load',
        'runtime.loadLanguageModel',
        'languageModel.generate',
        'cache.truncate',
      ]),
    );
    expect(labels.length).toBeGreaterThan(40);
  });

  test.each(calls)('%s refuses them', async (_, call) => {
    const outcome = async () => call(...Array(9).fill({}));
    await expect(outcome()).rejects.toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_ARGUMENT',
        message: expect.stringMatching(/^Expected (no arguments|at most \d arguments?) for [^,].*, got 9\./),
      }),
    );
  });

  test('are told where they go', async () => {
    const surplus = hqq.quantizeModel as (...args: unknown[]) => Promise<unknown>;
    await expect(surplus(file, freshPath(), {}, { signal: AbortSignal.abort() })).rejects.toThrow(
      'Expected at most 3 arguments for quantizeModel(input, output, options), got 4. ' +
        'Every option goes into the last, signal and threads too.',
    );
    const q = hqq.quantizeSync(weight);
    expect(() => [q].map(hqq.unpack as never)).toThrow(
      'Expected at most 1 argument for unpack(q), got 3. A callback of map or forEach is given three: wrap the call in a function.',
    );
  });
});

describe('what holds no options', () => {
  const controller = new AbortController();
  const [path, q] = [freshPath(), hqq.quantizeSync(weight)];
  const layer = new hqq.QuantizedLinear(q);
  const x = new Float32Array(64);
  const stoppable: [string, (options: never) => unknown][] = [
    ['quantize', (run) => hqq.quantize(weight, {}, run)],
    ['quantizeSync', (run) => hqq.quantizeSync(weight, {}, run)],
    ['js.quantize', (run) => js.quantize(weight, {}, run)],
    ['dequantize', (run) => hqq.dequantize(q, run)],
    ['dequantizeSync', (run) => hqq.dequantizeSync(q, run)],
    ['fromWeight', (options) => hqq.QuantizedLinear.fromWeight(weight, {}, options)],
    ['forward', (run) => layer.forward(x, run)],
    ['forwardSync', (run) => layer.forwardSync(x, run)],
    ['forwardMany', (run) => hqq.QuantizedLinear.forwardMany([layer], x, run)],
    ['layer.dequantize', (run) => layer.dequantize(run)],
    ['quantizeModel', (options) => hqq.quantizeModel(file, path, options)],
    ['dequantizeModel', (options) => hqq.dequantizeModel(file, path, options)],
    ['compareModels', (options) => hqq.compareModels(file, path, options)],
    ['model.load', (options) => model.load('a.weight', options)],
    ['loadLanguageModel', (options) => runtime.loadLanguageModel(SHIPPED, options)],
    ['generate', (options) => languageModel.generate('Alice', options).next()],
    ['perplexity', (options) => languageModel.perplexity([1, 2, 3], options)],
  ];
  const others: [string, (options: never) => unknown][] = [
    ['quantize', (config) => hqq.quantize(weight, config)],
    ['fromWeight', (config) => hqq.QuantizedLinear.fromWeight(weight, config)],
    ['new QuantizedLinear', (options) => new hqq.QuantizedLinear(q, options)],
    ['model.tensor', (options) => model.tensor('a.weight', options)],
    ['saveTensors', (options) => hqq.saveTensors(path, { q }, options)],
  ];
  const refusal = (pattern: RegExp) =>
    expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringMatching(pattern) });

  test.each([...stoppable, ...others])('%s says where a signal goes', async (_, call) => {
    const outcome = async (given: unknown) => call(given as never);
    await expect(outcome(controller.signal)).rejects.toThrow(
      refusal(/^Expected an object of options, got an AbortSignal\. A signal goes into \{ signal \}/),
    );
    await expect(outcome(controller)).rejects.toThrow(
      refusal(/got an AbortController\. A signal goes into \{ signal: controller\.signal \}/),
    );
    await expect(outcome([])).rejects.toThrow(refusal(/^Expected an object of options, got \[\]\. Options: \w/));
  });

  test.each(others)('%s has none itself', async (_, call) => {
    const outcome = async () => call(controller.signal as never);
    await expect(outcome()).rejects.toThrow('{ signal } in the last argument of calls that can be stopped.');
  });
});

test('a promise that nobody awaited is told', async () => {
  const promise = (): never => hqq.quantize(weight) as never;
  const open = await source.block(0); // `block` was let go when the head was read
  const { module } = open.linears[0]!;
  const bare = { data: new Float32Array(64 * 64), shape: [64, 64] } as never;
  const calls = [
    () => hqq.dequantize(promise()),
    () => hqq.QuantizedLinear.create(promise()),
    () => open.replace({ [module]: promise() }),
    () => hqq.quantize(promise()),
    () => hqq.saveTensors(freshPath('out.safetensors'), { x: promise() }),
  ];
  for (const call of calls) {
    await expect(call(), String(call)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringContaining('got a Promise: await it.') as string,
    });
  }
  await expect(hqq.QuantizedLinear.create(bare)).rejects.toThrow('Quantize it first');
  await expect(hqq.dequantize(bare)).rejects.toThrow('Quantize it first');
});

describe('options in the wrong argument', () => {
  const signal = new AbortController().signal;
  const misplaced = (message: string) =>
    expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: `Expected ${message}.` });

  test('of quantize', async () => {
    const config = (given: object) => given as hqq.QuantConfig;
    await expect(hqq.quantize(weight, config({ signal }))).rejects.toThrow(
      misplaced('signal in another argument: quantize(weight, config, { signal })'),
    );
    expect(() => hqq.quantizeSync(weight, config({ nbits: 4, threads: 1 }))).toThrow(
      misplaced('threads in another argument: quantize(weight, config, { threads })'),
    );
    await expect(hqq.quantize(weight, {}, { nbits: 3 } as hqq.RunOptions)).rejects.toThrow(
      misplaced('nbits in another argument: quantize(weight, { nbits }, run)'),
    );
    await expect(hqq.quantize(weight, config({ signl: 1 }))).rejects.toThrow('Unknown option "signl". Options: nbits,');
  });

  test('of a weight', async () => {
    const { fromWeight } = hqq.QuantizedLinear;
    await expect(hqq.quantize({ ...weight, nbits: 2 } as hqq.Weight)).rejects.toThrow(
      misplaced('nbits in another argument: quantize(weight, { nbits })'),
    );
    expect(() => hqq.quantizeSync({ ...weight, threads: 1 } as hqq.Weight)).toThrow(
      misplaced('threads in another argument: quantize(weight, config, { threads })'),
    );
    await expect(fromWeight({ ...weight, groupSize: 32 } as hqq.Weight)).rejects.toThrow(
      misplaced('groupSize in another argument: QuantizedLinear.fromWeight(weight, { groupSize })'),
    );
    await expect(fromWeight({ ...weight, activations: 'int8' } as hqq.Weight)).rejects.toThrow(
      misplaced('activations in another argument: QuantizedLinear.fromWeight(weight, config, { activations })'),
    );
  });

  test('of fromWeight', async () => {
    const { fromWeight } = hqq.QuantizedLinear;
    await expect(fromWeight(weight, { activations: 'int8' } as hqq.QuantConfig)).rejects.toThrow(
      misplaced('activations in another argument: QuantizedLinear.fromWeight(weight, config, { activations })'),
    );
    await expect(fromWeight(weight, {}, { nbits: 3 } as hqq.LinearOptions)).rejects.toThrow(
      misplaced('nbits in another argument: QuantizedLinear.fromWeight(weight, { nbits }, options)'),
    );
    await expect(fromWeight(weight, null as never)).rejects.toThrow('Expected the configuration to be an object');
  });
});
