import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import type { PlanOptions } from '../../lib/allocate/options.js';
import { planModel } from '../../lib/allocate/plan-model.js';
import type { MeasuredPlan } from '../../lib/allocate/plan-report.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('plan');
const FEW = { probeTokens: 32, tokens: 64 };
let plan: MeasuredPlan;
let stages: Set<string>;

beforeAll(async () => {
  stages = new Set();
  plan = await planModel(SHIPPED, { ...FEW, targetBits: 3.2, onProgress: ({ phase }) => void stages.add(phase) });
});

const dryRun = (given: unknown) =>
  quantizeModel(SHIPPED, join(scratch, 'out'), { plan: given as string, dryRun: true });

describe('planModel', () => {
  test('meets its target, and tells what it measured', () => {
    const { report, overrides } = plan;
    expect([...stages]).toEqual(['importance', 'measuring', 'checking']);
    expect(report.bits).toBeLessThanOrEqual(3.2);
    expect(report.bits).toBeGreaterThanOrEqual(3.2 * 0.99);
    expect(Object.keys(overrides)).toHaveLength(21);
    for (const own of Object.values(overrides)) expect([2, 3, 4]).toContain(own.nbits);
    for (const block of [0, 1, 2]) {
      const bits = (name: string) => overrides[`model.layers.${block}.${name}_proj`]!.nbits;
      expect(bits('self_attn.k')).toBe(bits('self_attn.q'));
      expect(bits('self_attn.v')).toBe(bits('self_attn.q'));
      expect(bits('mlp.up')).toBe(bits('mlp.gate'));
    }
    expect(report.kept === 'mixed').toBe(
      report.planned.divergence < report.uniform.divergence && report.planned.divergence < report.line!,
    );
    for (const { divergence } of report.sensitivity) expect(divergence[0]!).toBeGreaterThan(divergence[2]!);
    expect(report.candidates).toEqual([{ nbits: 2 }, { nbits: 3 }, { nbits: 4 }]); // those around the target
    const losses = report.curve.map(({ loss }) => loss);
    expect(losses).toEqual([...losses].sort((a, b) => b - a));
  });

  test('gives the same plan for the same seed and any number of threads', async () => {
    expect(JSON.stringify(await planModel(SHIPPED, { ...FEW, targetBits: 3.2, threads: 1 }))).toBe(
      JSON.stringify(plan),
    );
  });

  test('meets a size, with widths that an engine has', async () => {
    const small = await planModel(SHIPPED, { ...FEW, targetSize: '2.4MB', widths: [4, 8], importance: 'none' });
    const { totals } = await dryRun(small);
    expect(totals.bytesAfter).toBeLessThan(2.4e6 * 1.001);
    expect(totals.bytesAfter).toBeGreaterThan(2.4e6 * 0.98);
  });

  test('refuses what cannot be, and stops', async () => {
    const refused = (options: object, message: RegExp) =>
      expect(planModel(SHIPPED, options as PlanOptions)).rejects.toThrow(message);
    await refused({}, /targetBits or targetSize.*got neither/);
    await refused({ targetBits: 3, targetSize: 1 }, /got both/);
    await refused({ targetBits: 1.5 }, /targetBits.*from 2 to 8.*got 1.5/);
    await refused({ targetSize: '1kB' }, /targetSize.*from .* to .*got 1/);
    await refused({ targetSize: 'much' }, /a size such as 500MB/);
    await refused({ targetBits: 3, widths: [3, 3] }, /Expected widths/);
    await refused({ targetBits: 3, nbits: 4 }, /Unknown option "nbits"/);
    const signal = AbortSignal.timeout(1);
    const reason: unknown = await planModel(SHIPPED, { targetBits: 3, signal }).catch((error) => error);
    expect(reason).toBe(signal.reason);
    expect(reason).toMatchObject({ name: 'TimeoutError' });
  });
});

describe('quantizeModel with a plan', () => {
  test('gives layers the bits of the plan, edited or not, from an object or a file', async () => {
    const edited = { ...plan, overrides: { ...plan.overrides, 'model.layers.2.mlp.down_proj': { nbits: 8 } } };
    const file = join(scratch, 'plan.json');
    writeFileSync(file, JSON.stringify(edited));
    const { tensors, totals } = await quantizeModel(SHIPPED, join(scratch, 'edited'), { plan: file });
    for (const { name, config } of tensors) {
      expect(config.nbits).toBe(edited.overrides[name.replace('.weight', '') as keyof typeof edited.overrides]!.nbits);
    }
    const whole = await dryRun(plan);
    expect(whole.totals.bitsPerWeight).toBeCloseTo(plan.report.bitsPerWeight, 4);
    expect(totals.bitsPerWeight).toBeGreaterThan(plan.report.bitsPerWeight);
    const stronger = { plan, nbits: 2, overrides: { '*.down_proj': { nbits: 5 } }, dryRun: true } as const;
    const { tensors: own } = await quantizeModel(SHIPPED, join(scratch, 'own'), stronger);
    expect(own.filter(({ config }) => config.nbits === 5)).toHaveLength(3);
    expect(own.find(({ name }) => name.includes('0.self_attn.q'))!.config.nbits).toBe(
      plan.overrides['model.layers.0.self_attn.q_proj']!.nbits,
    );
  });

  test('refuses what is no plan', async () => {
    const bad = (change: object, message: RegExp, code = 'ERR_INVALID_OPTION') =>
      expect(dryRun({ ...plan, ...change })).rejects.toThrow(
        expect.objectContaining({ code, message: expect.stringMatching(message) }),
      );
    await bad({ version: 2 }, /version to be 1.*got 2/);
    await bad({ model: 'x' }, /expected model to be a fingerprint/);
    await bad({ model: '0'.repeat(64) }, /plan for another model.*take "model" out/, 'ERR_CHECKPOINT_CONTENT');
    await bad({ overrides: [] }, /expected overrides to be an object/);
    await bad({ overrides: { a: 3 } }, /overrides\["a"\] to be an object of options/);
    await bad({ overrides: { '*q_proj': { nbits: 7 } } }, /the plan: overrides\["\*q_proj"\]: Expected nbits/);
    await bad({ overrides: { nothing: { nbits: 3 } } }, /nothing/, 'ERR_CHECKPOINT_CONTENT');
    await bad({ overides: {} }, /Unknown option "overides"/);
    await bad({ config: 3 }, /expected config to be an object/);
    const file = join(scratch, 'bad.json');
    for (const text of [
      '',
      '[]',
      '{"version":1',
      '{"version":1,"version":1,"overrides":{}}',
      '{"version":1,"overrides":null}',
      '['.repeat(1e5),
    ]) {
      writeFileSync(file, text);
      await expect(dryRun(file)).rejects.toThrow(
        expect.objectContaining({ code: 'ERR_CHECKPOINT_FORMAT', message: expect.stringContaining('bad.json') }),
      );
    }
    await expect(dryRun(join(scratch, 'missing.json'))).rejects.toThrow(/missing\.json/);
    await expect(dryRun(3)).rejects.toThrow(/Expected plan to be the path of a plan, or a plan, got 3/);
  });
});
