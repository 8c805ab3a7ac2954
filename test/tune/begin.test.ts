import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import * as onnx from '../../interop/onnxruntime/graph.mjs';
import { collectImportance } from '../../lib/calibrate/collect.js';
import { saveStatistics } from '../../lib/calibrate/statistics-file.js';
import type { ConversionRun } from '../../lib/models/options.js';
import type { TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { failure } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// What is looked at before a model is tuned.

const scratch = scratchFolder('tune-begin');
const text =
  'The sea was calm, and the ship lay still. Nobody knew why she had come, or who was to pay for it. '.repeat(3);
const tune: TuneOptions = { data: { text }, steps: 2, tokens: 64, length: 32, batch: 2 };
const SAVED = { force: true, seed: undefined };

describe('a run that tunes', () => {
  test('refuses the state of a text or of statistics that have changed since', async () => {
    const output = join(scratch, 'files');
    const [book, statistics] = [join(scratch, 'book.txt'), join(scratch, 'statistics.safetensors')];
    writeFileSync(book, text);
    await saveStatistics(statistics, await collectImportance(SHIPPED, { tokens: 64 }), SAVED);
    const own = { nbits: 2, groupSize: 64, importance: statistics, tune: { ...tune, data: `text:${book}` } } as const;
    const controller = new AbortController();
    const signal = controller.signal;
    const onProgress: NonNullable<ConversionRun['onProgress']> = ({ tuning }) =>
      void (tuning && controller.abort(new Error('stopped')));
    expect((await failure(() => quantizeModel(SHIPPED, output, { ...own, signal, onProgress }))).message).toBe(
      'stopped',
    );
    writeFileSync(book, `${text}The end.`);
    expect((await failure(() => quantizeModel(SHIPPED, output, own))).message).toMatch(/to be the state of this run/);
    writeFileSync(book, text);
    await saveStatistics(statistics, await collectImportance(SHIPPED, { tokens: 65 }), SAVED);
    expect((await failure(() => quantizeModel(SHIPPED, output, own))).message).toMatch(/to be the state of this run/);
  });

  test('refuses a text that is not there before it begins, also in a dry run', async () => {
    const output = join(scratch, 'refused early');
    for (const dryRun of [true, false]) {
      const own = { nbits: 2, groupSize: 16, dryRun } as const;
      const missing = { ...own, tune: { ...tune, data: `text:${join(scratch, 'none.txt')}` } };
      expect((await failure(() => quantizeModel(SHIPPED, output, missing))).message).toMatch(/Cannot read .*none\.txt/);
    }
    const short = { nbits: 2, groupSize: 64, tune: { ...tune, data: 'own', tokens: 2 } } as const;
    expect((await failure(() => quantizeModel(SHIPPED, output, short))).message).toMatch(
      /at least two texts of 2 tokens/,
    );
    expect(existsSync(`${output}.tune`)).toBe(false);
  });

  test('refuses a graph, of which no block runs, and says what to do', async () => {
    const [cols, rows] = [128, 160];
    const weights = onnx.floats('w', [cols, rows], onnx.gaussian(cols * rows, 7));
    const nodes = [onnx.node('MatMul', ['x', 'w'], ['y'])];
    const [inputs, outputs] = [[onnx.value('x', 'float32', [1, cols])], [onnx.value('y', 'float32', [1, rows])]];
    const input = join(scratch, 'model.onnx');
    writeFileSync(input, onnx.model(onnx.graph({ nodes, tensors: [weights], inputs, outputs })));
    const error = await failure(() => quantizeModel(input, join(scratch, 'q.onnx'), { tune }));
    expect(error.code).toBe('ERR_INVALID_OPTION');
    expect(error.message).toMatch(
      /got one for MatMulNBits of onnxruntime: .*gradients of a graph\. Tune the folder that it was made of/,
    );
  });
});
