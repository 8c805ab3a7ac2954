import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { resolveTune, type TuneOptions } from '../../lib/models/tuning/option.js';
import { quantizeModel } from '../../lib/queue/quantize.js';
import { Encoder } from '../../lib/runtime/encoder/encoder.js';
import { openTunedSource } from '../../lib/tune/source.js';
import { recordEncoderBlock } from '../../lib/tune/tape/encoder-tape.js';
import { tuningTexts } from '../../lib/tune/texts.js';
import { expectSameBytes } from '../support/bytes.js';
import { failure } from '../support/checkpoints.js';
import { GOLDEN_ENCODERS, writeEncoder, writeTokenizer } from '../support/golden-encoders.js';
import { gaussian, randomOf } from '../support/random.mjs';
import { scratchFolder } from '../support/scratch.js';
import { expectSlope } from '../support/slopes.js';

const scratch = scratchFolder('tune-encoders');
const LENGTHS = [9, 1, 6];
const ROWS = 16;
const CASES = GOLDEN_ENCODERS.cases;

const floats = (random: () => number, length: number) => Float32Array.from({ length }, gaussian(random, 1));

describe.each(CASES)('$name', (one) => {
  test('the gradients of every block are those that differences of its output say', async () => {
    const encoder = await Encoder.open(writeEncoder(join(scratch, one.name.replaceAll(/\W/g, '-')), one));
    const { hiddenSize: width, layers } = encoder.config;
    const random = randomOf(5);
    const input = floats(random, ROWS * width);
    for (let index = 0; index < layers; index++) {
      const block = await encoder.block(index);
      const weights = new Map<string, Float32Array>();
      for (const { module, linear } of block.linears) weights.set(module, await linear.weights({}));
      const tape = recordEncoderBlock(block, { lengths: LENGTHS, weights, ofInput: true });
      const pull = floats(random, ROWS * width);
      const loss = async () => {
        tape.hidden.set(input);
        await tape.forward({});
        return tape.hidden.reduce((sum, value, i) => sum + value * pull[i]!, 0);
      };
      await loss();
      let first = 0;
      for (const length of LENGTHS) {
        const alone = input.slice(first * width, (first + length) * width);
        await block.run(alone);
        expectSameBytes(tape.hidden.slice(first * width, (first += length) * width), alone);
      }
      tape.gradient.set(pull);
      await tape.backward({});
      const gradients = new Map([...tape.weightGradients].map(([module, gradient]) => [module, gradient.slice()]));
      const ofInput = tape.gradient.slice();
      expect([...gradients.keys()]).toEqual(block.linears.map(({ module }) => module));
      const near = encoder.config.activation === 'relu' ? 1e-2 : 2e-4; // within a step some numbers pass the bend at 0
      for (const [module, weight] of weights)
        await expectSlope(module, loss, weight, gradients.get(module)!, random, near);
      await expectSlope('the input', loss, input, ofInput, random, near);
    }
    await encoder.close();
  });
});

describe('tuning encoders', () => {
  const bert = join(scratch, 'bert');
  const tune: TuneOptions = { steps: 8, tokens: 192, length: 16, batch: 4 };
  const options = { nbits: 3, groupSize: 8, tune } as const;
  const bytesOf = (folder: string) => readFileSync(join(folder, 'model.safetensors'));

  beforeAll(() => {
    writeEncoder(bert, CASES[0]!);
    writeTokenizer(bert);
  });

  test('by random tokens, brings blocks nearer to those of floats, with the same bytes for any number of threads', async () => {
    const [plain, tuned, again] = ['plain', 'tuned', 'again'].map((name) => join(scratch, name)) as [
      string,
      string,
      string,
    ];
    const { importance, notes } = await quantizeModel(bert, tuned, { ...options, threads: 1 });
    expect(importance).toBe('random');
    expect(notes.join(' ')).toMatch(/Tuned \d blocks in 8 steps each: .* are [1-9]\d(\.\d)? % of what they were/);
    await quantizeModel(bert, again, { ...options, threads: 3 });
    expect(bytesOf(again).equals(bytesOf(tuned))).toBe(true);
    await quantizeModel(bert, plain, { ...options, tune: false });
    expect(bytesOf(plain).equals(bytesOf(tuned))).toBe(false);
  });

  test('by a text, line by line', async () => {
    const book = join(scratch, 'book.txt');
    writeFileSync(
      book,
      Array.from({ length: 40 }, (_, i) => `the sea is calm w${i % 29} a ship w${(i * 7) % 29}`).join('\n'),
    );
    const { importance, notes } = await quantizeModel(bert, join(scratch, 'by text'), {
      ...options,
      tune: { ...tune, data: `text:${book}`, keep: true },
    });
    expect(notes.join(' ')).toMatch(/stays in .*by text\.tune; .* goes on from it\./); // without a last stage
    expect(importance).toBe('text');
    expect(notes.join(' ')).toMatch(/Tuned \d blocks in 8 steps each/);
  });

  test('reads lines of a text as long as it is asked to, and says what is wrong with one', async () => {
    const run = { adapter: undefined, seed: 0, threads: 1, signal: undefined, onProgress: undefined };
    const opened = await openTunedSource(bert);
    const source = { ...opened, path: bert, config: { ...opened.config, maxPositions: 512 } };
    const textsOf = (text: string, length: number) =>
      tuningTexts(source, resolveTune({ data: { text }, tokens: 2048, length })!, run);
    const lines = Array.from({ length: 3 }, () => 'sea '.repeat(600)).join('\n');
    for (const length of [40, 300])
      expect((await textsOf(lines, length)).texts.map((ids) => ids.length)).toEqual([length, length, length]);
    const [one, none] = [await failure(() => textsOf('the sea', 16)), await failure(() => textsOf('\n', 16))];
    expect(one.message).toMatch(/at least two texts of 2 tokens.*got 1 text\. Give a text of more lines\.$/);
    expect(none.message).toBe('Expected a text to tune with, got one without a token.');
    await opened.close();
  });

  test('refuses what an encoder cannot give', async () => {
    const output = join(scratch, 'refused');
    const own = await failure(() => quantizeModel(bert, output, { ...options, tune: { data: 'own' } }));
    expect(own.message).toMatch(
      /Expected a model that writes text.*an encoder\. random needs none; text:<file> names one\./,
    );
    const model = await failure(() => quantizeModel(bert, output, { ...options, tune: { model: true } }));
    expect(model.message).toMatch(/Expected a model that gives probabilities.*an encoder\. Leave --tune-model out\./);
  });
});
