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
import { compareModels } from '../../lib/models/compare.js';
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
  describe('whose matrix is spelt number by number', () => {
    const spelt = (type: number, ...fields: Buffer[]) =>
      Buffer.concat([number(1, K), number(1, N), number(2, type), block(8, 'w'), ...fields]);
    const float = (value: number) => Buffer.concat([varint((4 << 3) | 5), Buffer.from(Float32Array.of(value).buffer)]);
    // float16 numbers in int32_data, as a helper of Python's onnx writes them, or with a sign.
    const halves = Uint16Array.from(W, (_, i) => ((i % 3) << 14) | (0x3000 + (i % 512)));
    const signed = (half: number) => varint(BigInt.asIntN(16, BigInt(half)));
    for (const [title, type, own, raw] of [
      ['floats, each with its tag', 'float32', spelt(1, ...Array.from(W, float)), W],
      ['whole numbers, packed', 'float16', spelt(10, block(5, Buffer.concat(Array.from(halves, varint)))), halves],
      [
        'whole numbers, each with its tag',
        'float16',
        spelt(10, ...Array.from(halves, (half) => number(5, half))),
        halves,
      ],
      ['negative numbers', 'float16', spelt(10, block(5, Buffer.concat(Array.from(halves, signed)))), halves],
    ] as const) {
      it(`is quantized as one whose numbers lie together: ${title}`, async () => {
        const outputs = [value('y', type, [1, N])];
        const network = (w: Buffer) =>
          model(graph({ nodes: [node('MatMul', ['x', 'w'], ['y'])], tensors: [w], outputs }));
        const [given, expected] = [outFile(), outFile()];
        await quantizeModel(fileOf(network(own)), given);
        await quantizeModel(fileOf(network(tensor('w', type, [K, N], raw))), expected);
        expect(fs.readFileSync(given).equals(fs.readFileSync(expected))).toBe(true);
        await compareModels(fileOf(network(own)), given);
      });
    }

    it('is refused where there are other numbers', async () => {
      const few = model(
        graph({
          nodes: [node('MatMul', ['x', 'w'], ['y'])],
          tensors: [spelt(1, ...Array.from(W.subarray(1), float))],
          outputs: [value('y', 'float32', [1, N])],
        }),
      );
      await expectError(() => openSource(fileOf(few)), 'ERR_CHECKPOINT_FORMAT', /spells other numbers one by one/);
    });
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

  it('has importance where onnxruntime runs it, and nothing that goes block by block, which says why', async () => {
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
