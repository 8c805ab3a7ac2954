import * as fs from 'node:fs';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parseHeader } from '../../lib/containers/safetensors/header.js';
import {
  loadTensors,
  openModel,
  type QuantizedTensor,
  quantizeSync,
  saveTensors,
  type Weight,
} from '../../lib/index.js';
import {
  beside,
  failure,
  freshPath,
  modelFile,
  modelFolder,
  randomTensor,
  randomWeights,
  type Source,
} from '../support/checkpoints.js';

const weight = (rows: number, cols: number, seed = 1): Weight => ({
  data: randomWeights(rows * cols, seed),
  shape: [rows, cols],
});
const quantized = quantizeSync(weight(64, 128));
const fresh = () => freshPath('layers.safetensors');

function expectSame(got: unknown, want: QuantizedTensor): void {
  const { stats, adapted, ...fields } = want;
  expect(got).toMatchObject(fields);
  expect(Number.isNaN((got as QuantizedTensor).stats.relativeError)).toBe(true);
  expect(Object.isFrozen(got)).toBe(true);
}

describe('saveTensors and loadTensors', () => {
  it.each([
    {},
    { nbits: 8, axis: 0 },
    { nbits: 3, groupSize: 24 },
    { nbits: 1.58, groupSize: null },
    { nbits: 1, solver: 'minmax' },
    { nbits: 5, groupSize: 8 },
  ] as const)('give back what was quantized (%j)', async (config) => {
    const path = fresh();
    const q = quantizeSync(weight(48, 120, 7), config);
    const odd = quantizeSync(weight(3, 7, 3), { nbits: config.nbits ?? 4 });
    const given = { 'a.weight': q, 'encoder/kernel:0': odd, __proto__x: q };
    await saveTensors(path, given);
    const loaded = await loadTensors(path);
    expect(Object.keys(loaded).sort()).toEqual(Object.keys(given).sort());
    for (const [name, tensor] of Object.entries(given)) expectSame(loaded[name], tensor);
    const model = await openModel(path);
    expectSame(model.quantized('a'), q);
    await model.close();
    const again = fresh();
    await saveTensors(again, loaded);
    expect(Buffer.compare(fs.readFileSync(path), fs.readFileSync(again))).toBe(0);
  });

  it('keep scales and zeros that float16 does not hold, and NaN', async () => {
    const path = fresh();
    const scale = quantized.scale.map((value, i) => (i === 1 ? 1e-30 : i === 2 ? Number.NaN : value / 3));
    const zero = quantized.zero.map((value) => value * 1e20);
    await saveTensors(path, { 'x.weight': { ...quantized, scale, zero } });
    expectSame((await loadTensors(path))['x.weight'], { ...quantized, scale, zero });
  });

  it('give back dense matrices of every type, from bytes too', async () => {
    const path = fresh();
    const halves = Uint16Array.from({ length: 6 }, (_, i) => i * 1000);
    const floats = randomWeights(6, 5);
    await saveTensors(path, {
      f32: { data: floats, shape: [2, 3] },
      f16: { data: halves, dtype: 'float16', shape: [3, 2] },
      bf16: { data: new Uint8Array(halves.buffer.slice(0), 0, 12), dtype: 'bfloat16', shape: [1, 6] },
      'q.weight': quantized,
    });
    const loaded = await loadTensors(pathToFileURL(path));
    expect(loaded.f32).toEqual({ data: floats, dtype: 'float32', shape: [2, 3] });
    expect(loaded.f16).toEqual({ data: halves, dtype: 'float16', shape: [3, 2] });
    expect(loaded.bf16).toEqual({ data: halves, dtype: 'bfloat16', shape: [1, 6] });
    expectSame(loaded['q.weight'], quantized);
    await saveTensors(path, {}, { force: true });
    expect(await loadTensors(path)).toEqual({});
  });

  it('hold the bias of a layer as a row', async () => {
    const path = fresh();
    const bias: Weight = { data: randomWeights(64, 9), shape: [1, 64] };
    await saveTensors(path, { 'up.weight': quantized, 'up.bias': bias });
    const model = await openModel(path);
    expect(model.bias('up')).toEqual(bias.data);
    expect(model.shape('up.bias')).toEqual([64]);
    const zeros = new Float32Array(128);
    expect(await model.linear('up').forward(zeros)).toEqual(bias.data);
    await model.close();
    expect((await loadTensors(path))['up.bias']).toEqual({ ...bias, dtype: 'float32' });
    const error = await failure(() => saveTensors(fresh(), { 'up.weight': quantized, 'up.bias': weight(2, 64) }));
    expect(error.message).toBe('"up.bias": Expected the bias of "up.weight" to be 1 x 64, got 2 x 64.');
  });

  it('are read from a folder, too', async () => {
    const folder = modelFolder([{ 'a.weight': randomTensor([8, 8], 1) }]);
    expect(Object.keys(await loadTensors(folder))).toEqual(['a.weight']);
    await expect(loadTensors('')).rejects.toThrow('a .safetensors file or a model folder');
  });

  it('write metadata, and replace a file only where that was asked for', async () => {
    const path = fresh();
    await saveTensors(path, { 'a.weight': quantized }, { metadata: { note: 'é', format: 'np' } });
    const bytes = fs.readFileSync(path);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = parseHeader(bytes.subarray(8, 8 + length), { file: 'x', fileSize: bytes.byteLength });
    expect(Object.fromEntries(header.metadata)).toEqual({ note: 'é', format: 'pt' });
    const error = await failure(() => saveTensors(path, { 'b.weight': quantized }));
    expect(error).toMatchObject({ code: 'ERR_IO', message: expect.stringContaining('exists') });
    expect(Buffer.compare(fs.readFileSync(path), bytes)).toBe(0);
    await saveTensors(path, { 'b.weight': quantized }, { force: true });
    expect(Object.keys(await loadTensors(path))).toEqual(['b.weight']);
    expect(beside(path)).toEqual(['layers.safetensors']);
  });

  it.each([
    [{ a: { ...quantized, groupSize: 63 } }, /^"a": /],
    [{ a: { ...quantized, scale: quantized.scale.slice(1) } }, /^"a": Expected scale to have 128 elements/],
    [
      { a: { data: new Float32Array(4), shape: [4] } },
      /^"a": Expected weight\.shape to be two positive integers, got \[4\]/,
    ],
    [{ a: 3 }, /^"a": Expected weight to be an object, got 3/],
    [null, /^Expected the tensors to be an object, got null/],
    [{ 'a.weight': quantized, a: quantized }, /"a" and "a\.weight" .* both need "a\.W_q"/],
    [{ 'a.weight': quantized, 'a.scale': weight(2, 2) }, /both need "a\.scale"/],
    [{ 'a.weight': quantized, 'a.bare': weight(2, 2) }, /both need "a\.bare"/],
    [{ 'a.W_q': weight(2, 2) }, /cannot be taken for a layer's codes/],
    [{ '': weight(2, 2) }, /Expected a tensor that a safetensors file can hold, got ""/],
  ] as const)('refuse %j, and leave nothing', async (tensors, message) => {
    const path = fresh();
    const error = await failure(() => saveTensors(path, tensors as never));
    expect(error.message).toMatch(message);
    expect(error.code).toMatch(/^ERR_(INVALID_ARGUMENT|GROUP_SIZE)$/);
    expect(beside(path)).toEqual([]);
  });

  it.each([
    [{ forced: true }, /Unknown option "forced"/],
    [{ force: 1 }, /Expected force to be true or false, got 1/],
    [{ metadata: { a: 1 } }, /Expected metadata\["a"\] to be a text, got 1/],
    [{ metadata: 'x' }, /Expected metadata to be an object of texts, got "x"/],
  ])('refuse the option %j', async (options, message) => {
    const error = await failure(() => saveTensors(fresh(), {}, options as never));
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringMatching(message) });
  });

  it('load lists as rows, and refuse what is no matrix', async () => {
    const load = (source: Source) => loadTensors(modelFile(source));
    expect((await load({ list: randomTensor([5], 1, 'bfloat16') })).list).toMatchObject({
      shape: [1, 5],
      dtype: 'bfloat16',
    });
    const others: Source[] = [
      { cube: randomTensor([2, 2, 2], 1) },
      { scalar: randomTensor([], 1) },
      { ids: { dtype: 'I64', shape: [2], bytes: new Uint8Array(16) } },
      { empty: { dtype: 'F32', shape: [0, 4], bytes: new Uint8Array(0) } },
    ];
    for (const source of others) {
      expect(await failure(() => load(source))).toMatchObject({
        code: 'ERR_CHECKPOINT_CONTENT',
        message: expect.stringMatching(/to be a matrix or a list of F32, F16, BF16, got .*openModel reads the others/),
      });
    }
    const broken = { 'a.W_q': randomTensor([2, 2], 1) };
    expect(await failure(() => load(broken))).toMatchObject({ code: 'ERR_CHECKPOINT_FORMAT' });
  });
});
