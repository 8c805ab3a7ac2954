import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { quantizeSync } from '../../lib/compute/quantize.js';
import { openBlockSource } from '../../lib/runtime/source/block-source.js';
import { changedModel, SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('block-errors');

describe('what is wrong', () => {
  test('of a model is said before a weight is read', async () => {
    await expect(openBlockSource(changedModel(scratch, 'layers', { num_hidden_layers: 4 }))).rejects.toThrow(
      'has no tensor model.layers.3.self_attn.q_proj.weight.',
    );
    await expect(openBlockSource(changedModel(scratch, 'size', { intermediate_size: 7 }))).rejects.toThrow(
      /Expected model\.layers\.0\.mlp\.gate_proj\.weight to be 7 x 256 after config\.json, got 512 x 256/,
    );
    await expect(openBlockSource(changedModel(scratch, 'fewer', { num_hidden_layers: 2 }))).rejects.toThrow(
      'holds tensors that the architecture of its config.json does not have',
    );
    await expect(openBlockSource(join(SHIPPED, 'model.safetensors'))).rejects.toThrow('which has none');
    await expect(openBlockSource(join(scratch, 'nowhere'))).rejects.toMatchObject({ code: 'ERR_IO' });
  });

  test('of options is named', async () => {
    const open = (options: unknown) => openBlockSource(SHIPPED, options as never);
    await expect(open(null)).rejects.toThrow('Expected the options to be an object, got null.');
    await expect(open({ activation: 'int8' })).rejects.toThrow('Did you mean "activations"?');
    await expect(open({ maxContext: 5 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
    await expect(open({ signal: 5 })).rejects.toThrow('Expected signal to be an AbortSignal, got 5.');
    await expect(open({ signal: AbortSignal.abort('enough') })).rejects.toBe('enough');
    const source = await openBlockSource(SHIPPED);
    for (const index of [-1, 3, 0.5, '0', undefined, NaN]) {
      await expect(source.block(index as never)).rejects.toThrow('Expected index to be an integer in [0, 2], got ');
    }
    await expect(source.block(0, { abort: 1 } as never)).rejects.toThrow('abort');
    await expect(source.head(null as never)).rejects.toThrow('Expected the options to be an object, got null.');
    await expect(source.embed([])).rejects.toThrow('Expected ids to be a list of token ids');
    await expect(source.embed([2048])).rejects.toThrow(
      'Expected every token id to be an integer in [0, 2047], got 2048.',
    );
    await expect(source.embed('text' as never)).rejects.toThrow('Expected ids to be a list of token ids');
    await source.close();
  });

  test('of rows and weights is named', async () => {
    const source = await openBlockSource(SHIPPED);
    const block = await source.block(0);
    const x = await source.embed([1, 2]);
    const run = (texts: unknown, options?: unknown) => block.forward(texts as never, options as never);
    await expect(run(x)).rejects.toThrow('Expected texts to be a list of Float32Array, one a text, got');
    await expect(run([x, [1]])).rejects.toThrow('Expected texts[1] to be a Float32Array, got');
    await expect(run([new Float32Array(191)])).rejects.toThrow(
      'Expected texts[0] to have 1 to 16777216 rows of 256 numbers (hiddenSize), got 191.',
    );
    await expect(run([new Float32Array(0)])).rejects.toThrow('got 0.');
    await expect(run([x], null)).rejects.toThrow('Expected the options to be an object, got null.');
    await expect(run([x], { taps: 1 })).rejects.toThrow('Did you mean "tap"?');
    await expect(run([x], { tap: 1 })).rejects.toThrow('Expected tap to be a function, got 1.');
    await expect(run([x], { onProgress: 1 })).rejects.toThrow('Expected onProgress to be a function, got 1.');
    await expect(run([x], { signal: 1 })).rejects.toThrow('Expected signal to be an AbortSignal, got 1.');
    await expect(run([x], { out: x })).rejects.toThrow('Expected out to be a list of Float32Array');
    await expect(run([x], { out: [] })).rejects.toThrow('Expected out to have 1 arrays as texts, got 0.');
    await expect(run([x], { out: [new Float32Array(256)] })).rejects.toThrow('Expected out[0] to have 512 numbers');
    const two = new Float32Array(4 * 256);
    const [a, b, shifted] = [two.subarray(0, 512), two.subarray(512), two.subarray(256, 768)];
    await expect(run([a], { out: [shifted] })).rejects.toThrow(
      'Expected out to be memory of its own, or texts themselves',
    );
    await expect(run([a, b], { out: [b, a] })).rejects.toThrow('share some');
    await expect(run([x, x], { out: [a, a] })).rejects.toThrow('out[0] and out[1] share some');
    await expect(run([a, a], { out: [a, x.slice()] })).rejects.toThrow('out[0] and texts[1] share some');

    const name = 'model.layers.0.self_attn.q_proj';
    await expect(block.weight('model.layers.0.self_attn.q_pro')).rejects.toThrow(`Did you mean "${name}"?`);
    await expect(block.weight(`model.layers.1.self_attn.q_proj`)).rejects.toThrow('a linear layer of model.layers.0');
    await expect(block.weight(name, { signal: AbortSignal.abort('enough') })).rejects.toBe('enough');
    await expect(block.replace(null as never)).rejects.toThrow('Expected the weights to be an object, got null.');
    await expect(block.replace({ [name]: x })).rejects.toThrow(
      `Expected the weight of ${name} to have 65536 elements for 256 x 256, got 512.`,
    );
    await expect(block.replace({ [name]: 5 as never })).rejects.toThrow(
      `Expected the weight of ${name} to be an object`,
    );
    const other = quantizeSync({ data: new Float32Array(64 * 256), shape: [64, 256] });
    await expect(block.replace({ [name]: other })).rejects.toThrow(
      `Expected the weight of ${name} to be 256 x 256, got`,
    );

    const head = await source.head();
    await expect(head.forward([x] as never)).rejects.toThrow('Expected x to be a Float32Array, got');
    await expect(head.forward(x.subarray(1))).rejects.toThrow('rows of 256 numbers (hiddenSize), got 511.');
    await expect(head.forward(x, { out: new Float32Array(5) })).rejects.toThrow('Expected out to have 4096 elements');
    await expect(head.forward(x, { logits: 'all' } as never)).rejects.toThrow('logits');
    await source.close();
  });
});
