import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { activeBackend } from '../../lib/backend/index.js';
import { openSource } from '../../lib/containers/list.js';
import { openAdapter, readFactor } from '../../lib/models/adapter/lora.js';
import { MergedSource } from '../../lib/models/adapter/merged-source.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { DenseLinear } from '../../lib/runtime/blocks/linear.js';
import { Lora } from '../../lib/runtime/blocks/lora.js';
import { Plan } from '../../lib/runtime/blocks/plan.js';
import { readAdapter } from '../../lib/runtime/weights/adapters.js';
import { adapterFolder } from '../support/adapters.js';
import {
  failure,
  freshPath,
  llama,
  modelFile,
  modelFolder,
  numbersOf,
  type Source,
  snapshot,
  tensorOf,
} from '../support/checkpoints.js';

interface Text {
  readonly shape: readonly number[];
  readonly data: string;
}

interface Case {
  readonly config: Readonly<Record<string, unknown>>;
  readonly base: Readonly<Record<string, Text>>;
  readonly adapter: Readonly<Record<string, Text>>;
  readonly merged: Readonly<Record<string, Text>>;
}

const CASES = JSON.parse(fs.readFileSync(new URL('../golden/adapters.json', import.meta.url), 'utf8')) as Record<
  string,
  Case
>;

const floats = ({ data }: Text) => new Float32Array(Uint8Array.from(Buffer.from(data, 'base64')).buffer);
const tensors = (texts: Case['base']): Source =>
  Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, tensorOf(floats(text), text.shape)]));

describe.each(Object.keys(CASES))('an adapter with %s', (name) => {
  test("is merged as peft's own merge does it", async () => {
    const { config, base, adapter, merged } = CASES[name]!;
    const source = await MergedSource.over(
      await openSource(modelFile(tensors(base))),
      adapterFolder(tensors(adapter), config),
    );
    try {
      expect(source.count).toBe(Object.keys(merged).length);
      for (const [weight, text] of Object.entries(merged)) {
        const expected = floats(text);
        const entry = source.entries.get(weight)!;
        const bytes = new Uint8Array(4 * expected.length);
        // In parts that begin within rows.
        for (let at = 0; at < bytes.length; at += 52) await source.read(entry, at, bytes.subarray(at, at + 52));
        const numbers = new Float32Array(bytes.buffer);
        const before = floats(base[weight]!);
        const off = (from: Float32Array) => Math.max(...from.map((number, i) => Math.abs(number - expected[i]!)));
        expect(off(before)).toBeGreaterThan(0.1);
        expect(off(numbers)).toBeLessThan(1e-5);
      }
    } finally {
      await source.close();
    }
  });

  test("gives beside the weights what peft's merged ones give", async () => {
    const { config, base, adapter, merged } = CASES[name]!;
    const names = Object.keys(merged);
    const turned = config.fan_in_fan_out === true;
    const shapeOf = ({ shape }: Text) => (turned ? [shape[1]!, shape[0]!] : [shape[0]!, shape[1]!]) as [number, number];
    /** Of `[outFeatures, inFeatures]`. */
    const rowsOf = (text: Text) => {
      const [numbers, [outs, ins]] = [floats(text), shapeOf(text)];
      return turned ? numbers.map((_, i) => numbers[(i % ins) * outs + Math.floor(i / ins)]!) : numbers;
    };
    const moduleOf = (weight: string) => weight.replace(/\.weight$/, '');
    const shapes = new Map(names.map((weight) => [moduleOf(weight), shapeOf(base[weight]!)]));
    const beside = await readAdapter('own', adapterFolder(tensors(adapter), config), { path: 'model', shapes });
    for (const weight of names) {
      const [outs, ins] = shapeOf(base[weight]!);
      const [x, out] = [Float32Array.from({ length: 3 * ins }, (_, i) => Math.sin(i)), new Float32Array(3 * outs)];
      const plan = new Plan(2);
      new DenseLinear(rowsOf(base[weight]!), [outs, ins]).addTo(plan, x, 3, out);
      Lora.of([{ rows: 3, adapters: [beside] }])!.addTo(plan, moduleOf(weight), x, 3, out);
      await plan.run(activeBackend(), {});
      const whole = rowsOf(merged[weight]!);
      out.forEach((y, i) => {
        const [row, col] = [Math.floor(i / outs), i % outs];
        let sum = 0;
        for (let k = 0; k < ins; k++) sum += whole[col * ins + k]! * x[row * ins + k]!;
        expect(Math.abs(y - sum)).toBeLessThan(1e-5);
      });
    }
  });
});

const MODULE = 'model.layers.0.self_attn.q_proj';
const CONFIG = { peft_type: 'LORA', r: 2, lora_alpha: 4 };
const prefix = `base_model.model.${MODULE}`;
const pair: Source = {
  [`${prefix}.lora_A.weight`]: tensorOf(
    Float32Array.from({ length: 128 }, (_, i) => Math.sin(i) / 8),
    [2, 64],
  ),
  [`${prefix}.lora_B.weight`]: tensorOf(
    Float32Array.from({ length: 128 }, (_, i) => Math.cos(i) / 8),
    [64, 2],
  ),
};

test('a model becomes what the merged one becomes; all else is as it was, and a note says what was merged', async () => {
  const source = llama('float32');
  const [a, b] = Object.values(pair).map(numbersOf) as [Float32Array, Float32Array];
  const values = numbersOf(source[`${MODULE}.weight`]!).map(
    (value, i) => value + 2 * (b[2 * (i >> 6)]! * a[i & 63]! + b[2 * (i >> 6) + 1]! * a[64 + (i & 63)]!),
  );
  const merged = { ...source, [`${MODULE}.weight`]: tensorOf(values, [64, 64]) };
  const [ours, direct] = [freshPath('ours'), freshPath('direct')];
  const report = await quantizeModel(modelFolder([source]), ours, { adapter: adapterFolder(pair, CONFIG) });
  expect(report.notes.join('\n')).toMatch(/^The adapter in .* was merged into 1 tensor\./m);
  await quantizeModel(modelFolder([merged]), direct);
  expect(snapshot(ours)).toEqual(snapshot(direct));
  // A layer that stays has it, too.
  const [left, whole] = [freshPath('left'), freshPath('whole')];
  await quantizeModel(modelFolder([source]), left, { adapter: adapterFolder(pair, CONFIG), exclude: MODULE });
  await quantizeModel(modelFolder([merged]), whole, { exclude: MODULE });
  expect(snapshot(left)).toEqual(snapshot(whole));
});

test('patterns of one wildcard, of alternatives and of numbers between dots are taken', async () => {
  for (const pattern of [
    '.*_proj',
    '(?:.*k|.*q)_proj',
    'layers\\.\\d+\\.self_attn\\.q.?proj',
    '\\d+\\.\\w+\\.q_proj',
  ]) {
    const adapter = await openAdapter(adapterFolder(pair, { ...CONFIG, alpha_pattern: { [pattern]: 3 } }), () => {});
    expect(adapter.pairs[0]!.scale).toBe(1.5);
    await adapter.source.close();
  }
});

/** An adapter of rank 1 and of `modules` modules with long names, and as many patterns that take their time. */
function slowAdapter(modules: number, patterns: number): string {
  const source = Object.fromEntries(
    Array.from({ length: modules }, (_, i) => `base_model.model.zz${'z'.repeat(230)}${i}`).flatMap((name) =>
      ['A', 'B'].map((half) => [`${name}.lora_${half}.weight`, tensorOf([1], [1, 1])]),
    ),
  );
  const alphas = Object.fromEntries(Array.from({ length: patterns }, (_, i) => [`z*z?z?z?z?0${i}`, 1]));
  return adapterFolder(source, { ...CONFIG, alpha_pattern: alphas });
}

test('patterns are held against modules that the model has, in bounds, and until a signal says no', async () => {
  const refused: string[] = [];
  const other = await failure(() =>
    openAdapter(slowAdapter(2, 1), ({ module }) => {
      refused.push(module);
      throw new Error('none of ours');
    }),
  );
  expect(other.message).toBe('none of ours');
  expect(refused).toHaveLength(1);
  const many = await failure(() => openAdapter(slowAdapter(64, 65), () => {}));
  expect(many).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT' });
  expect(many.message).toContain('alpha_pattern of 65 patterns for 64 modules, which may take for ever');
  const control = new AbortController();
  const stopped = await failure(() =>
    openAdapter(slowAdapter(8, 8), () => control.abort(new Error('enough')), control.signal),
  );
  expect(stopped.message).toBe('enough');
  // A name for each of many modules is no such thing.
  const named = Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`layers.${i}.self_attn.q_proj`, i + 2]));
  const adapter = await openAdapter(adapterFolder(pair, { ...CONFIG, alpha_pattern: named }), () => {});
  expect(adapter.pairs[0]!.scale).toBe(1);
  await adapter.source.close();
});

test('a matrix that no memory holds is named', async () => {
  const source = await openSource(modelFolder([{ a: tensorOf([1], [1, 1]) }]));
  const entry = { ...source.entries.get('a')!, shape: [40e6, 576] };
  const error = await failure(() => readFactor(source, entry));
  await source.close();
  expect(error).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
  expect(error.message).toBe('There is not enough memory for "a".');
});

test.each([
  [{ ...CONFIG, use_dora: true }, pair, 'DoRA (use_dora)'],
  [{ ...CONFIG, peft_type: 'LOHA' }, pair, 'peft_type "LOHA"'],
  [{ ...CONFIG, bias: 'all' }, pair, 'trained biases'],
  [{ ...CONFIG, modules_to_save: ['lm_head'] }, pair, 'modules that are saved whole'],
  [{ ...CONFIG, init_lora_weights: 'pissa' }, pair, 'init_lora_weights'],
  [{ ...CONFIG, lora_alpha: 'much' }, pair, 'lora_alpha "much"'],
  [{ ...CONFIG, alpha_pattern: { '(a+)+': 3 } }, pair, 'alpha_pattern'],
  ...[
    '.*.*.*.*.*.*!',
    '\\w{1,90}\\w{1,90}\\w{1,90}!',
    `${'\\w?'.repeat(40)}!`,
    `${'(\\w|.)'.repeat(36)}!`,
    '(.*)x+?!',
    '.{2,}.+!',
    'a)|(?:.*.*.*.*.*',
    `${'\\d+\\.?'.repeat(10)}!`,
  ].map((slow) => [{ ...CONFIG, alpha_pattern: { [slow]: 3 } }, pair, 'which may take for ever'] as const),
  [CONFIG, { ...pair, [`${prefix}.lora_magnitude_vector`]: tensorOf([1], [1]) }, 'DoRA'],
  [CONFIG, { [`${prefix}.lora_A.weight`]: tensorOf(new Float32Array(128), [2, 64]) }, 'only one of the two'],
  [
    CONFIG,
    Object.fromEntries(Object.entries(pair).map(([name, tensor]) => [name.replace('q_proj', 'x_proj'), tensor])),
    'another model',
  ],
  [CONFIG, { ...pair, [`${prefix}.lora_B.weight`]: tensorOf(new Float32Array(64), [32, 2]) }, 'another model'],
] as const)('%j is refused by name', async (config, source, text) => {
  const out = freshPath();
  const error = await failure(() =>
    quantizeModel(modelFolder([llama()]), out, { adapter: adapterFolder(source as Source, config) }),
  );
  expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT' });
  expect(error.message).toContain(text);
  expect(fs.existsSync(out)).toBe(false);
});
