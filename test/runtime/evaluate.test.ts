import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { evaluateModels } from '../../lib/runtime/evaluate/evaluate.js';
import type { EvaluateOptions, EvaluateProgress } from '../../lib/runtime/evaluate/options.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { expectFailure, hqq } from '../support/cli.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('evaluate');
const [q4, q2] = [join(scratch, 'q4'), join(scratch, 'q2')];
const ids = Array.from({ length: 70 }, (_, i) => (i * 37 + (i % 7) * 11) % 2048);

beforeAll(async () => {
  await quantizeModel(SHIPPED, q4, { nbits: 4 });
  await quantizeModel(SHIPPED, q2, { nbits: 2 });
});

/** The shipped model with another config.json. */
function changed(name: string, change: object): string {
  const path = join(scratch, name);
  cpSync(SHIPPED, path, { recursive: true });
  const config = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')) as object;
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config, ...change }));
  return path;
}

/** Probabilities, in float64, of what comes after each of the ids, window by window. */
async function probabilities(path: string, window: number): Promise<number[][]> {
  const model = await loadLanguageModel(path, { head: 'float32' });
  const rows: number[][] = [];
  for (let w = 0; (w + 1) * window < ids.length; w++) {
    const part = ids.slice(w * window, (w + 1) * window);
    const logits = await model.forward(part, model.createCache(), { logits: 'all' });
    for (let row = 0; row < window; row++) {
      const all = [...logits.subarray(row * 2048, (row + 1) * 2048)];
      const most = Math.max(...all);
      const powers = all.map((x) => Math.exp(x - most));
      const sum = powers.reduce((a, b) => a + b);
      rows.push(powers.map((x) => x / sum));
    }
  }
  await model.close();
  return rows;
}

describe('evaluateModels', () => {
  test('tells what whole models tell, of several side by side', async () => {
    const window = 23;
    const report = await evaluateModels(SHIPPED, [q4, q2], { ids, window });
    expect(report).toMatchObject({ source: 'ids', tokens: 69, window: 23 });
    expect(report).not.toHaveProperty('seed');
    const truth = await probabilities(SHIPPED, window);
    const mean = (list: readonly number[]) => list.reduce((a, b) => a + b) / list.length;
    for (const [score, path] of [
      [report.original, SHIPPED],
      [report.quantized[0]!, q4],
      [report.quantized[1]!, q2],
    ] as const) {
      const own = await probabilities(path, window);
      const nll = mean(own.map((row, i) => -Math.log(row[ids[i + 1]!]!)));
      const divergence = mean(truth.map((p, i) => p.reduce((sum, x, t) => sum + x * Math.log(x / own[i]![t]!), 0)));
      const top = (row: readonly number[]) => row.indexOf(Math.max(...row));
      expect(score.path).toBe(path);
      expect(score.nll).toBeCloseTo(nll, 5);
      expect(score.perplexity).toBeCloseTo(Math.exp(score.nll), 8);
      expect(Math.abs(score.klDivergence - divergence)).toBeLessThan(1e-6 + 1e-4 * divergence);
      expect(score.topAgreement).toBeCloseTo(mean(truth.map((p, i) => Number(top(p) === top(own[i]!)))), 10);
    }
    expect(report.original).toMatchObject({ klDivergence: 0, topAgreement: 1 });
    expect(report.quantized[0]!.klDivergence).toBeLessThan(report.quantized[1]!.klDivergence);
    expect(report.quantized[0]!.bytes).toBeLessThan(report.original.bytes);
  });

  test('of a text it gives the perplexity that the model gives', async () => {
    const text = readFileSync(join(SHIPPED, 'alice.txt'), 'utf8').slice(0, 4000);
    const report = await evaluateModels(SHIPPED, q4, { text, window: 64, tokens: 500 });
    expect(report).toMatchObject({ source: 'text', tokens: 448, window: 64 });
    const model = await loadLanguageModel(q4, { head: 'float32' });
    const tokenizer = await model.tokenizer();
    const own = await model.perplexity((await tokenizer.encode(text)).slice(0, 449), { window: 64 });
    await model.close();
    expect(report.quantized[0]!.perplexity).toBeCloseTo(own.perplexity, 8);
  });

  test('random ids follow from the seed, and results not from the number of threads', async () => {
    const run = (options: EvaluateOptions) => evaluateModels(SHIPPED, q4, { tokens: 96, window: 48, ...options });
    const [one, two, other] = [await run({ threads: 1 }), await run({ threads: 2 }), await run({ seed: 9 })];
    expect(one).toMatchObject({ source: 'random', tokens: 96, seed: 1 });
    expect(two).toEqual(one);
    expect(other.quantized[0]!.nll).not.toBe(one.quantized[0]!.nll);
    expect((await run({ window: 500 })).window).toBe(96);
  });

  test('tells where it is, and ends when it is told to', async () => {
    const seen: EvaluateProgress[] = [];
    await evaluateModels(SHIPPED, [q4, q2], { ids, window: 32, onProgress: (progress) => seen.push(progress) });
    const last = seen.at(-1)!;
    expect(last.stepsDone).toBe(last.stepsTotal);
    expect(new Set(seen.map(({ model }) => model))).toEqual(new Set([SHIPPED, q4, q2]));
    expect(seen.every(({ stepsDone }, i) => stepsDone >= (seen[i - 1]?.stepsDone ?? 0))).toBe(true);
    const stop = new AbortController();
    const reason = new Error('enough');
    const onProgress = ({ stepsDone }: EvaluateProgress) => stepsDone === 2 && stop.abort(reason);
    const run = evaluateModels(SHIPPED, q4, { ids, window: 32, signal: stop.signal, onProgress });
    await expect(run).rejects.toBe(reason);
  });

  test('says what is wrong', async () => {
    const refused = (others: string | string[], options: EvaluateOptions, message: RegExp, code?: string) =>
      expect(evaluateModels(SHIPPED, others, options)).rejects.toMatchObject({
        message: expect.stringMatching(message) as string,
        code: code ?? 'ERR_INVALID_OPTION',
      });
    await refused(q4, { text: 'a', ids }, /Expected a text or ids, got "both"/);
    await refused(q4, { ids, seed: 1 }, /Expected no seed where a text or ids are given, got 1/);
    await refused(q4, { window: 0 }, /Expected window to be an integer in/);
    await refused(q4, { tokens: 1.5 }, /Expected tokens to be an integer/);
    await refused(q4, { windows: 3 } as never, /Unknown option "windows"\. Did you mean "window"\?/);
    await refused([], {}, /Expected models to compare with the original/, 'ERR_INVALID_ARGUMENT');
    await refused(
      q4,
      { ids: [1, 2, 3] },
      /Expected at least 129 token ids for a window of 128, got 3/,
      'ERR_INVALID_ARGUMENT',
    );
    await refused(q4, { ids, window: 5000 }, /the context of .*, got 5000/, 'ERR_INVALID_ARGUMENT');
    const bert = changed('bert', { architectures: ['BertModel'], model_type: 'bert' });
    await refused(bert, {}, /BertModel/, 'ERR_CHECKPOINT_CONTENT');
    const nothing = join(scratch, 'nothing');
    await refused(nothing, {}, /nothing/, 'ERR_IO');
  });
});

describe('hqq evaluate', () => {
  test('prints a table, or everything as JSON', async () => {
    const flags = ['--tokens', '64', '--window', '32'];
    const { stdout, stderr, status } = await hqq(['evaluate', SHIPPED, q4, q2, ...flags], {});
    expect({ stderr, status }).toEqual({ stderr: '', status: 0 });
    expect(stdout).toMatch(
      /^64 tokens of random ids of seed 1, in windows of 32\n\n {2}model +size +perplexity +divergence/,
    );
    expect(stdout.trim().split('\n')).toHaveLength(6);
    const report = JSON.parse((await hqq(['evaluate', SHIPPED, q4, q2, ...flags, '--json'])).stdout) as object;
    expect(report).toEqual(await evaluateModels(SHIPPED, [q4, q2], { tokens: 64, window: 32 }));
  });

  test('says what is wrong', async () => {
    expectFailure(await hqq(['evaluate', SHIPPED]), 2, /Expected <quantized>\.\.\. after "hqq evaluate/);
    expectFailure(await hqq(['evaluate', SHIPPED, q4, '']), 2, /Expected <quantized>\.\.\. to be a path, got ""/);
    expectFailure(await hqq(['evaluate', SHIPPED, q4, '--window', '0']), 2, /Expected --window to be an integer/);
    expectFailure(await hqq(['evaluate', SHIPPED, q4, '--text', 'a.txt', '--seed', '1']), 2, /Expected no seed/);
    expectFailure(await hqq(['evaluate', SHIPPED, join(scratch, 'none')]), 1, /none/);
  });
});
