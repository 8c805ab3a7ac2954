import { describe, expect, test } from 'vitest';
import type { QuantizeArgs } from '../binding.js';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { dequantizeSync, quantize, quantizeSync } from '../lib/compute/quantize.js';
import { quantizeJob } from '../lib/compute/quantize-job.js';
import { objective, traceJob } from '../lib/compute/trace.js';
import type { QuantConfig } from '../lib/matrix/config.js';
import { resolveQuantConfig } from '../lib/matrix/options.js';
import { quantizeModel } from '../lib/models/quantize/quantize.js';
import { SOLVERS } from '../lib/solvers/solvers.js';
import { expectSameBytes } from './support/bytes.js';
import { failure, freshPath, modelFile, randomTensor, randomWeights } from './support/checkpoints.js';
import { hqq } from './support/cli.js';
import { floats, golden, goldenTensors } from './support/golden.js';

const SHAPE = [64, 128] as const;
const data = randomWeights(SHAPE[0] * SHAPE[1], 5);
const weight = { data, shape: SHAPE };

/** What a result of these options comes to, from the weights that it stands for. */
function objectiveOf(config: QuantConfig): number {
  const w = dequantizeSync(quantizeSync(weight, config));
  const { solver, lpNorm } = resolveQuantConfig(config);
  const squares = solver === 'minmax' || lpNorm === 2;
  return data.reduce((sum, value, i) => sum + (squares ? (value - w[i]!) ** 2 : Math.abs(value - w[i]!)), 0);
}

describe.each(SOLVERS)('trace of %s', (solver) => {
  for (const more of [{ nbits: 4 }, { nbits: 2, axis: 0 }, { nbits: 3, granularity: 'channel' }] as const) {
    test(`${JSON.stringify(more)}: what the solver has after each iteration`, async () => {
      const config: QuantConfig = { ...more, solver, iterations: 6, trace: true };
      const { trace, ...q } = quantizeSync(weight, config);
      expect(trace).toBeInstanceOf(Float64Array);
      expect(trace).toHaveLength(Math.max(1, q.stats.iterations));
      const { trace: _, ...plain } = quantizeSync(weight, { ...config, trace: false });
      expect(q).toEqual(plain);
      expect((await quantize(weight, config)).trace).toEqual(trace);
      trace!.forEach((value, k) => {
        const stopped = objectiveOf({ ...config, iterations: k + 1, trace: false });
        expect(Math.abs(value / stopped - 1)).toBeLessThan(1e-5);
      });
    });
  }

  test('is the same on every backend, for any number of threads', () => {
    const config = resolveQuantConfig({ solver, iterations: 5 });
    const { args } = quantizeJob(weight, { solver, iterations: 5, trace: true }, {}).next().value as {
      args: QuantizeArgs;
    };
    const traces = availableBackends().flatMap((name) =>
      [1, 3].map((threads) => {
        const run = { ...args, threads, stats: new Float64Array(5) };
        openBackend(name).run('quantize', run);
        const { steps, stats } = traceJob(run, config, run.stats[3]!);
        for (const { operation, args: own } of steps) openBackend(name).run(operation, own as never);
        return Float64Array.from([...stats, run.stats], (one) => objective(one, config));
      }),
    );
    for (const trace of traces) expectSameBytes(trace, traces[0]!);
  });
});

test("hqq's trace is the reference's mean error, iteration by iteration", () => {
  const c = golden.cases.find(
    ({ name, tensors }) => tensors.includes('errs') && !name.includes('kappa') && tensors.length > 0,
  )!;
  const { file, tensor, shape } = golden.inputs[c.input]!;
  const weights = floats(goldenTensors(file).get(tensor)!);
  const errs = floats(goldenTensors(c.file).get(`${c.name}.errs`)!);
  const { trace } = quantizeSync(
    { data: weights, shape },
    {
      ...{
        nbits: c.nbits as 4,
        groupSize: c.group_size,
        axis: c.axis,
        lpNorm: c.lp_norm,
        solver: 'hqq',
        beta: c.beta,
        kappa: c.kappa,
      },
      ...{ iterations: c.max_iters, roundZero: c.round_zero, trace: true },
    },
  );
  // The reference's first is that of the start.
  const shared = Math.min(trace!.length, errs.length - 1);
  expect(shared).toBeGreaterThan(3);
  for (let k = 0; k < shared; k++) expect(Math.abs(trace![k]! / weights.length / errs[k + 1]! - 1)).toBeLessThan(1e-3);
});

test('whole models have none', async () => {
  const input = modelFile({ 'x.weight': randomTensor([64, 64], 1) });
  for (const options of [{ trace: true }, { overrides: { x: { trace: true } } }]) {
    const error = await failure(() => quantizeModel(input, freshPath('out.safetensors'), options));
    expect(error.message).toBe('Expected no trace of a whole model, got true: quantize gives that of one matrix.');
  }
  const { status, stderr } = await hqq(['quantize', input, '--out', freshPath('out.safetensors'), '--trace'], {});
  expect([status, stderr.includes('Unknown flag --trace')]).toEqual([2, true]);
});
