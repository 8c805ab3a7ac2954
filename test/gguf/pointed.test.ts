import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { idOfType } from '../../lib/containers/gguf/types.js';
import { storedType } from '../../lib/containers/stored-types.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { pointedType } from '../../lib/schemes/ggml/pointed.js';
import { freshPath, randomWeights } from '../support/checkpoints.js';
import { floatTensor, ggufFile } from '../support/gguf.js';

// Types that are read and not written. What their blocks mean is told by numbers of the Python package gguf 0.19 (`gguf.quants.dequantize`).

const NAMES = ['IQ1_S', 'IQ1_M', 'IQ2_XXS', 'IQ2_XS', 'IQ2_S', 'IQ3_XXS', 'IQ3_S', 'TQ1_0', 'TQ2_0', 'MXFP4', 'NVFP4'];

interface Golden {
  readonly blocks: string;
  readonly sha256: string;
  readonly first: readonly number[];
}
const GOLDEN = JSON.parse(fs.readFileSync(new URL('../golden/ggml-blocks.json', import.meta.url), 'utf8')) as Readonly<
  Record<string, Golden>
>;

const digest = (values: Float32Array) =>
  createHash('sha256')
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest('hex');

describe.each(NAMES)('%s', (name) => {
  const { weights, bytes, sub } = pointedType(name)!;
  const { blocks, sha256, first } = GOLDEN[name]!;
  const raw = new Uint8Array(Buffer.from(blocks, 'base64'));
  const count = (raw.length / bytes) * weights;

  function file(): string {
    const path = freshPath(`${name}.gguf`);
    const tensors = [
      { name: 'blk.0.ffn_up.weight', type: idOfType(storedType(name))!, shape: [1, count], bytes: raw },
      floatTensor('output_norm.weight', [8], randomWeights(8, 2)),
    ];
    fs.writeFileSync(path, ggufFile([['general.architecture', 'string', 'llama']], tensors));
    return path;
  }

  it('is read as the Python package does, as numbers and as codes', async () => {
    const model = await openModel(file());
    const values = model.tensor('blk.0.ffn_up');
    expect([...values.subarray(0, 4)]).toEqual(first);
    expect(digest(values)).toBe(sha256);
    const layer = model.linear('blk.0.ffn_up');
    const x = randomWeights(count, 5);
    const size = x.reduce((sum, value, i) => sum + Math.abs(value * values[i]!), 0);
    const exact = x.reduce((sum, value, i) => sum + value * values[i]!, 0);
    expect(Math.abs(layer.forwardSync(x)[0]! - exact)).toBeLessThan(1e-6 * size);
    expect(model.tensors[0]).toMatchObject({ shape: [1, count], quantized: { groupSize: sub, packing: name } });
    await model.close();
  });

  it('becomes floats, and is compared with them', async () => {
    const [input, back] = [file(), freshPath('back.gguf')];
    await dequantizeModel(input, back, { dtype: 'float32' });
    const model = await openModel(back);
    expect(digest(model.tensor('blk.0.ffn_up'))).toBe(sha256);
    await model.close();
    const { totals } = await compareModels(back, input);
    expect(totals).toMatchObject({ weights: count, relativeError: 0 });
  });
});
