import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { collectImportance } from '../../lib/calibrate/collect.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { quantizeSync } from '../../lib/compute/quantize.js';
import type { QuantizedTensor, RawWeight } from '../../lib/matrix/weight.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { loadTensors } from '../../lib/models/tensors.js';
import { expectSameBytes } from '../support/bytes.js';
import { failure, modelFolder, randomTensor } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('sequence');
const importance = { text: 'The sea was calm, and the ship lay still. '.repeat(10) };
const options = { nbits: 2, metaDtype: 'float32', importance, sequential: true } as const;

describe('importance in sequence', () => {
  test('is of the floats in the first block, and of what quantized blocks give in the others', async () => {
    const output = join(scratch, 'q2');
    const report = await quantizeModel(SHIPPED, output, options);
    expect(report.importance).toBe('text');
    const [original, layers] = [await loadTensors(SHIPPED), await loadTensors(output)];
    const [floats, codes] = [
      await collectImportance(SHIPPED, { importance }),
      await collectImportance(output, { importance }),
    ];
    // What goes into the projections of a block's attention comes from the blocks before it alone.
    for (const block of [0, 1, 2]) {
      const module = `model.layers.${block}.self_attn.q_proj`;
      const shares = codes.meanSquares.get(module)!;
      if (block === 0) expectSameBytes(shares, floats.meanSquares.get(module)!);
      else expect(shares).not.toEqual(floats.meanSquares.get(module));
      const weight = original[`${module}.weight`] as RawWeight;
      const config = report.tensors.find(({ name }) => name === `${module}.weight`)!.config;
      const { packed, scale } = layers[`${module}.weight`] as QuantizedTensor;
      const expected = quantizeSync(weight, config, { importance: shares });
      expectSameBytes(packed, expected.packed);
      expect(scale).toEqual(expected.scale);
    }
  });

  test('is the same for any number of threads, and another than without', async () => {
    const bytes = async (name: string, more: object) => {
      const output = join(scratch, name);
      await quantizeModel(SHIPPED, output, { ...options, importance: 'random', tokens: 128, ...more });
      return (await loadTensors(output))['model.layers.2.mlp.down_proj.weight'] as QuantizedTensor;
    };
    const [one, three, without] = await Promise.all([
      bytes('one', { threads: 1 }),
      bytes('three', { threads: 3 }),
      bytes('without', { sequential: false }),
    ]);
    expect(three).toEqual(one);
    expect(without.packed).not.toEqual(one.packed);
  });

  test.each(['channel', 'tensor'] as const)('goes with scales of a %s', async (granularity) => {
    const own = { nbits: 8, granularity, importance: 'random', tokens: 32, sequential: true } as const;
    const report = await quantizeModel(SHIPPED, join(scratch, granularity), own);
    expect(report.importance).toBe('random');
    expect(report.tensors[0]!.config).toMatchObject({ granularity });
  });

  test('stops at once when it is aborted', async () => {
    const controller = new AbortController();
    let blocks = 0;
    const onProgress = ({ importance: stand }: { readonly importance?: { readonly done: number } }) => {
      if (stand && stand.done > 0 && ++blocks === 2) controller.abort();
    };
    const run = quantizeModel(SHIPPED, join(scratch, 'aborted'), { ...options, signal: controller.signal, onProgress });
    expect(await failure(() => run)).toBe(controller.signal.reason);
    expect(blocks).toBe(2);
  });

  test('is refused where nothing is read, or not so', async () => {
    const refused = async (more: object, message: RegExp, input = SHIPPED) => {
      const run = () => quantizeModel(input, join(scratch, 'no'), { ...options, dryRun: true, ...more });
      expect((await failure(run)).message).toMatch(message);
    };
    await refused(
      { importance: 'none' },
      /importance to be auto, random, own or text:<file> with sequential, got "?none/,
    );
    await refused({ importance: 'stats.safetensors' }, /with sequential, got "?stats\.safetensors/);
    await refused({ refine: true }, /sequential to be false with refine/);
    await refused({ to: 'awq', nbits: 4, metaDtype: undefined }, /no other format than hqq with sequential/);
    await refused({ sequential: 1 }, /sequential to be true or false/);
    const folder = modelFolder([{ 'h.0.mlp.c_fc.weight': randomTensor([64, 64], 3) }], {
      config: '{"model_type": "gpt2"}',
    });
    for (const importance of ['random', 'auto'])
      await refused(
        { importance },
        /runs, for importance block by block \(--sequential\): hqq\/runtime does not run/,
        folder,
      );
    const file = join(scratch, 'floats.gguf');
    await dequantizeModel(SHIPPED, file);
    await refused({ metaDtype: undefined }, /no --sequential\) for ggml/, file);
  });
});
