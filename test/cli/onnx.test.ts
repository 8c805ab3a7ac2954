import * as fs from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { floats, gaussian, graph, model, node, value } from '../../interop/onnxruntime/graph.mjs';
import { freshPath } from '../support/checkpoints.js';
import { expectFailure, hqq } from '../support/cli.js';

test('hqq quantize, inspect and compare take an ONNX file', async () => {
  const [input, output] = [freshPath('in.onnx'), freshPath('out.onnx')];
  const nodes = [node('MatMul', ['x', 'w'], ['y'], {}, { name: '/layer/MatMul' })];
  const tensors = [floats('w', [128, 128], gaussian(128 * 128))];
  const outputs = [value('y', 'float32', ['rows', 128])];
  fs.writeFileSync(input, model(graph({ nodes, tensors, outputs })));
  const flags = ['--zero-point', 'float', '--accuracy-level', '0', '--include', '/layer/*', '--json'];
  const made = await hqq(['quantize', input, '--out', output, ...flags], {});
  expect(made.stderr).toBe('');
  expect(JSON.parse(made.stdout)).toMatchObject({
    tensors: [{ name: 'w', packing: 'MatMulNBits' }],
    notes: [expect.stringContaining('npm install onnxruntime-node')],
  });
  const { stdout } = await hqq(['inspect', output, '--json']);
  expect(JSON.parse(stdout)).toMatchObject({ format: 'onnx', loads: ['hqq', 'onnxruntime', 'transformers.js'] });
  const compared = await hqq(['compare', input, output, '--json']);
  expect(JSON.parse(compared.stdout).tensors).toMatchObject([{ name: 'w' }]);
  expectFailure(await hqq(['quantize', input, '--out', output, '--accuracy-level', '3']), 2, /one of 4, 0, got 3/);
});

test('hqq quantize --nbits 4,8 makes both forms of a folder', async () => {
  const [input, output] = [freshPath('folder'), freshPath('out')];
  fs.mkdirSync(join(input, 'onnx'), { recursive: true });
  fs.writeFileSync(join(input, 'config.json'), '{}');
  const nodes = [node('MatMul', ['x', 'w'], ['y'], {}, { name: '/layer/MatMul' })];
  const tensors = [floats('w', [128, 128], gaussian(128 * 128))];
  const outputs = [value('y', 'float32', ['rows', 128])];
  fs.writeFileSync(join(input, 'onnx', 'model.onnx'), model(graph({ nodes, tensors, outputs })));
  const { stdout } = await hqq(['quantize', input, '--out', output, '--nbits', '4,8', '--importance', 'none']);
  expect(stdout).toMatch(/Next: hqq inspect/);
  expect(fs.readdirSync(join(output, 'onnx'))).toEqual(['model_q4.onnx', 'model_quantized.onnx']);
  const { stdout: shown } = await hqq(['inspect', output, '--json']);
  expect(JSON.parse(shown).tensors.map(({ name }: { name: string }) => name)).toEqual([
    ...['model_q4/w', 'model_quantized/w'],
  ]);
  expectFailure(await hqq(['quantize', input, '--out', output, '--nbits', '4,7']), 2, /several different ones/);
});
