import * as fs from 'node:fs';
import { expect, test } from 'vitest';
import { openModel } from '../../lib/models/model.js';
import { freshPath, randomWeights } from '../support/checkpoints.js';
import { expectFailure, hqq } from '../support/cli.js';
import { floatTensor, ggufFile } from '../support/gguf.js';

test('hqq quantize --type makes blocks of that type, and says which there are', async () => {
  const [input, output] = [freshPath('in.gguf'), freshPath('out.gguf')];
  const weight = floatTensor('blk.0.attn_q.weight', [32, 512], randomWeights(32 * 512, 1));
  fs.writeFileSync(input, ggufFile([['general.architecture', 'string', 'llama']], [weight]));
  const { status, stderr } = await hqq(['quantize', input, '--out', output, '--type', 'q4_k'], {});
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  await using made = await openModel(output);
  expect(made.tensors.map(({ quantized }) => quantized?.packing)).toEqual(['Q4_K']);
  const wrong = await hqq(['quantize', input, '--out', freshPath('no.gguf'), '--type', 'q4_x'], {});
  expectFailure(wrong, 2, /Expected --type to be one of .*"q4_x"/);
});
