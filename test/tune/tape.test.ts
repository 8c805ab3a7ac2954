import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { openBlockSource } from '../../lib/runtime/source/block-source.js';
import type { OpenBlock } from '../../lib/runtime/source/open-block.js';
import { Room } from '../../lib/tune/tape/room.js';
import { recordBlock, type Tape } from '../../lib/tune/tape/tape.js';
import { expectSameBytes } from '../support/bytes.js';
import { goldenModel, writeGolden } from '../support/golden-models.js';
import { gaussian, randomOf } from '../support/random.mjs';
import { scratchFolder } from '../support/scratch.js';
import { expectSlope } from '../support/slopes.js';

const work = scratchFolder('tape');
const LENGTHS = [9, 1, 21];
const ROWS = 31;

/** One or two of each architecture: biases, windows, norms of heads, fused layers, caps, multipliers, blocks that turn nothing, experts. */
const NAMES = [
  'llama, biases everywhere',
  'llama, dynamic',
  'mistral, sliding window',
  'qwen2',
  'qwen3',
  'phi3, longrope in a part of each head, sliding window',
  'smollm3',
  'granite',
  'olmo2',
  'gemma2',
  'gemma3, cap, linear',
  'mixtral',
  'qwen3_moe',
  'qwen3_moe, some blocks without',
];

const floats = (random: () => number, length: number, size = 1) =>
  Float32Array.from({ length }, gaussian(random, size));

/** The block on copies of its weights. */
async function weightsOf(block: OpenBlock): Promise<Map<string, Float32Array>> {
  const weights = new Map<string, Float32Array>();
  for (const { module } of block.linears) weights.set(module, await block.weight(module));
  return weights;
}

/** How much of a loss, the sum of `pull * out`, is in what comes out, in float64. */
async function lossOf(tape: Tape, input: Float32Array, pull: Float32Array): Promise<number> {
  tape.hidden.set(input);
  await tape.forward({});
  return tape.hidden.reduce((sum, value, i) => sum + value * pull[i]!, 0);
}

/** A step may change what the router chooses, which no gradient knows of: positions that are near that pull at nothing. */
function leaveOut(
  logits: Float32Array,
  { count, chosen }: { readonly count: number; readonly chosen: number },
  pull: Float32Array,
): void {
  const width = pull.length / ROWS;
  for (let row = 0; row < ROWS; row++) {
    const own = logits.slice(row * count, (row + 1) * count).sort();
    if (own[count - chosen]! - own[count - chosen - 1]! < 0.3) pull.fill(0, row * width, (row + 1) * width);
  }
  expect(pull.some((value) => value !== 0)).toBe(true);
}

describe.each(NAMES)('%s', (name) => {
  const folder = writeGolden(join(work, name.replaceAll(/\W/g, '-')), goldenModel(name));
  const opened = openBlockSource(folder);
  afterAll(async () => (await opened).close());

  test('the gradients of every block are those that differences of its output say', async () => {
    const source = await opened;
    const random = randomOf(7);
    const width = source.config.hiddenSize;
    const input = floats(random, ROWS * width);
    for await (const block of source.blocks()) {
      const weights = await weightsOf(block);
      const room = new Room();
      const tape = recordBlock(block, { lengths: LENGTHS, weights, ofInput: true }, room);
      const pull = floats(random, ROWS * width);
      const loss = () => lossOf(tape, input, pull);
      await loss();
      const { experts } = room.frame(source.config, ROWS);
      if (experts && block.linears.some(({ module }) => module.endsWith('.gate')))
        leaveOut(experts.logits, source.config.experts!, pull);
      let first = 0;
      const texts = LENGTHS.map((length) => input.slice(first * width, (first += length) * width));
      const outs = await block.forward(texts);
      expectSameBytes(tape.hidden, Float32Array.of(...outs.flatMap((out) => [...out])));
      tape.gradient.set(pull);
      await tape.backward({});
      const gradients = new Map([...tape.weightGradients].map(([module, gradient]) => [module, gradient.slice()]));
      const ofInput = tape.gradient.slice();
      expect([...gradients.keys()]).toEqual(block.linears.map(({ module }) => module));
      for (const [module, weight] of weights)
        if (!/experts\.[2-9]/.test(module)) await expectSlope(module, loss, weight, gradients.get(module)!, random);
      await expectSlope('the input', loss, input, ofInput, random);
      // Again, and without what is not wanted: nothing is left of the run before.
      const module = block.linears[1]!.module;
      const some = recordBlock(block, {
        lengths: LENGTHS,
        weights: new Map([[module, weights.get(module)!]]),
        ofInput: false,
      });
      for (const one of [tape, some, some]) {
        await lossOf(one, input, pull);
        one.gradient.set(pull);
        await one.backward({});
        expectSameBytes(one.weightGradients.get(module)!, gradients.get(module)!);
      }
    }
  });
});

test('weights of experts that no position went through have a gradient of 0', async () => {
  const source = await openBlockSource(writeGolden(join(work, 'experts'), goldenModel('mixtral')));
  const block = await source.block(0);
  const tape = recordBlock(block, { lengths: [1], weights: await weightsOf(block), ofInput: false });
  for (const gradient of tape.weightGradients.values()) gradient.fill(NaN);
  tape.hidden.set(floats(randomOf(3), tape.hidden.length));
  await tape.forward({});
  tape.gradient.fill(1);
  await tape.backward({});
  const reached = Array.from({ length: source.config.experts!.count }, (_, expert) => {
    const own = [...tape.weightGradients].filter(([module]) => module.includes(`.experts.${expert}.`));
    expect(own.length).toBe(3);
    return own.map(([, gradient]) => gradient.every(Number.isFinite) && gradient.some((value) => value !== 0));
  });
  expect([...tape.weightGradients].map(([module]) => tape.isReached(module)).filter(Boolean).length).toBe(5 + 2 * 3);
  expect(reached.filter((ofExpert) => ofExpert.every(Boolean)).length).toBe(2);
  expect(reached.filter((ofExpert) => !ofExpert.some(Boolean)).length).toBe(3);
  await source.close();
});

test('a block on codes has no gradient', async () => {
  const folder = writeGolden(join(work, 'floats'), goldenModel('llama'));
  await quantizeModel(folder, join(work, 'codes'), { nbits: 4, groupSize: 8 });
  const source = await openBlockSource(join(work, 'codes'));
  const block = await source.block(0);
  const message =
    'Expected what has a gradient, got a linear layer on codes. Tune the model of floats that it was made of.';
  expect(() => recordBlock(block, { lengths: [3], weights: new Map(), ofInput: true })).toThrow(message);
  await source.close();
});
