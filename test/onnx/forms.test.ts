import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  block,
  floats,
  gaussian,
  graph,
  model,
  node,
  number,
  tensor,
  value,
  varint,
} from '../../interop/onnxruntime/graph.mjs';
import { collectImportance } from '../../lib/calibrate/collect.js';
import { obstacleToRefine } from '../../lib/calibrate/runs.js';
import { openSource } from '../../lib/containers/list.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { expectError, folderOf } from '../containers/helpers.js';

// What surrounds models in a folder, and what of a file cannot be quantized.

const [K, N] = [64, 256];
const W = gaussian(K * N);
const BYTES = Buffer.from(W.buffer, W.byteOffset, W.byteLength);

/** A product by `w`. */
const product = (w: Buffer, ...more: Buffer[]) =>
  model(
    graph({
      nodes: [node('MatMul', ['x', 'w'], ['y'])],
      tensors: [w, ...more],
      outputs: [value('y', 'float32', ['rows', N])],
    }),
  );
const PLAIN = product(floats('w', [K, N], W));

function folder(files: Readonly<Record<string, string | Uint8Array>>, config: object = {}): string {
  const path = folderOf({ 'config.json': JSON.stringify(config) });
  for (const [name, bytes] of Object.entries(files)) {
    fs.mkdirSync(dirname(join(path, name)), { recursive: true });
    fs.writeFileSync(join(path, name), bytes);
  }
  return path;
}

const fileOf = (bytes: Uint8Array) => join(folder({ 'p.onnx': bytes }), 'p.onnx');
const out = () => join(folderOf({}), 'out');
const outFile = () => join(folderOf({}), 'o.onnx');

describe('a folder of transformers.js', () => {
  it('may hold several forms of one model alone, which are read, and not written as one', async () => {
    const [q4, q8] = [outFile(), outFile()];
    const file = fileOf(PLAIN);
    await quantizeModel(file, q4);
    await quantizeModel(file, q8, { nbits: 8 });
    const input = folder({
      'onnx/model_q4.onnx': fs.readFileSync(q4),
      'onnx/model_quantized.onnx': fs.readFileSync(q8),
    });
    const source = await openSource(input);
    const names = [...source.entries.keys()].filter((name) => name.includes('_Q')).sort();
    await source.close();
    expect(names).toEqual(['model_q4/w_Q4', 'model_quantized/w_Q8']);
    const pattern = /several forms of one model.*model_q4\.onnx.*model_quantized\.onnx.*Pass one of the files/;
    await expectError(() => dequantizeModel(input, out()), 'ERR_CHECKPOINT_CONTENT', pattern);
  });

  it('tells of other weights that it leaves out, and takes no data of models along', async () => {
    const input = folder({
      ...{ 'onnx/model.onnx': PLAIN, 'onnx/model_fp16.onnx': PLAIN, 'onnx/model_fp16.onnx.data': 'of that' },
      ...{ 'extra/vad.onnx': PLAIN, 'tokenizer.json': '{}' },
    });
    const output = out();
    const { notes } = await quantizeModel(input, output);
    expect(notes.join('\n')).toMatch(/Not carried over, as other weights.*"extra\/vad\.onnx"\./);
    expect(fs.readdirSync(join(output, 'onnx'))).toEqual(['model_q4.onnx']);
    expect(fs.readdirSync(output).sort()).toEqual(['config.json', 'onnx', 'tokenizer.json']);
  });

  it('says of models that are written where their tensors lie, and keeps what it says of others', async () => {
    const format = (config: object) => ({ 'transformers.js_config': { use_external_data_format: config } });
    const formatOf = (path: string) =>
      JSON.parse(fs.readFileSync(join(path, 'config.json'), 'utf8'))['transformers.js_config'].use_external_data_format;
    const [inline, apart] = [out(), out()];
    await quantizeModel(
      folder({ 'onnx/model.onnx': PLAIN }, format({ 'model_q4.onnx': 1, 'model_fp16.onnx': 2 })),
      inline,
    );
    expect(formatOf(inline)).toEqual({ 'model_fp16.onnx': 2 });
    await quantizeModel(folder({ 'onnx/model.onnx': PLAIN }, format({ model: true })), inline, { force: true });
    expect(formatOf(inline)).toEqual({ model: true, 'model_q4.onnx': false });
    const w = tensor('w', 'float32', [K, N], W, { location: 'a.bin', offset: 0, length: BYTES.length });
    await quantizeModel(folder({ 'onnx/model.onnx': product(w), 'onnx/a.bin': BYTES }, format({})), apart);
    expect(formatOf(apart)).toEqual({ 'model_q4.onnx': 1 });
  });
});

describe('a file', () => {
  it('whose matrix is spelt number by number is refused with the reason, or says that it stays', async () => {
    // float16 numbers in int32_data, as a helper of Python's onnx writes them.
    const numbers = Buffer.concat(Array.from({ length: K * N }, (_, i) => varint(0x3000 + (i % 512))));
    const half = (name: string) =>
      Buffer.concat([number(1, K), number(1, N), number(2, 10), block(8, name), block(5, numbers)]);
    const reason = /spelt one by one \(int32_data, float_data\): "v"/;
    const only = model(
      graph({
        nodes: [node('MatMul', ['x', 'v'], ['y'])],
        tensors: [half('v')],
        outputs: [value('y', 'float16', [1, N])],
      }),
    );
    await expectError(() => quantizeModel(fileOf(only), outFile()), 'ERR_CHECKPOINT_CONTENT', reason);
    const { notes } = await quantizeModel(fileOf(product(floats('w', [K, N], W), half('v'))), outFile());
    expect(notes.join()).toMatch(reason);
  });

  it('whose tensors overlap is refused, however the file of them is spelt', async () => {
    const at = (name: string, location: string, offset: number) =>
      tensor(name, 'float32', [K, N], W, { location, offset, length: BYTES.length });
    const input = folder({
      'p.onnx': product(at('w', 'ov.bin', 0), at('v', './ov.bin', 4)),
      'ov.bin': Buffer.alloc(2 * BYTES.length),
    });
    await expectError(() => openSource(join(input, 'p.onnx')), 'ERR_CHECKPOINT_FORMAT', /"w" and "v" overlap/);
  });

  it('of nothing is told as what its name says', async () => {
    await expectError(() => openSource(fileOf(Buffer.alloc(0))), 'ERR_CHECKPOINT_FORMAT', /ONNX/);
  });

  it('has importance where onnxruntime runs it, and no error feedback, which says why', async () => {
    const file = fileOf(PLAIN);
    const missing = () => collectImportance(file, { importance: 'random' });
    await expectError(missing, 'ERR_DEPENDENCY', /npm install onnxruntime-node/);
    const written = () => collectImportance(file, { importance: 'own' });
    await expectError(written, 'ERR_CHECKPOINT_CONTENT', /for importance own, got .*, an ONNX model/);
    const source = await openSource(file);
    expect(await obstacleToRefine(source)).toMatch(/is an ONNX model/);
    await source.close();
  });
});
