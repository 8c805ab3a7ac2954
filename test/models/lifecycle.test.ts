import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { runFixture } from '../child.js';
import {
  beside,
  encode,
  failure,
  freshPath,
  llama,
  modelFolder,
  numbersOf,
  randomTensor,
  snapshot,
  tensorOf,
} from '../support/checkpoints.js';

/** Layers of a Llama that `llama` has not. */
const [UP, DOWN] = ['model.layers.2.mlp.up_proj.weight', 'model.layers.2.mlp.down_proj.weight'] as const;

describe('a weight that is not finite', () => {
  it.each([
    ['float32', 1, 2306, 1024, 1500, 1000],
    ['float32', 0, 2306, 1024, 1500, 1000],
    ['float32', 1, 8, 64, 7, 63],
  ] as const)(
    '%s, axis %i, %i x %i: named with row and column, nothing written',
    async (_, axis, rows, cols, row, col) => {
      const weights = numbersOf(randomTensor([rows, cols], 1));
      weights[row * cols + col] = -Infinity;
      const out = freshPath();
      const folder = modelFolder([
        { 'a.weight': randomTensor([64, 64], 1), 'x.y.weight': tensorOf(weights, [rows, cols]) },
      ]);
      const error = await failure(() => quantizeModel(folder, out, { axis, nbits: 3 }));
      expect(error.code).toBe('ERR_NON_FINITE_WEIGHT');
      const place = `x.y.weight of ${join(folder, 'model.safetensors')} holds -Infinity at row ${row}, column ${col}`;
      expect(error.message).toContain(place);
      expect(beside(out)).toEqual([]);
    },
  );
});

describe('the output', () => {
  it('is not replaced unless told to, and never the input', async () => {
    const folder = modelFolder([llama()]);
    const out = freshPath();
    await quantizeModel(folder, out);
    const before = snapshot(out);
    expect(await failure(() => quantizeModel(folder, out, { nbits: 8 }))).toMatchObject({
      code: 'ERR_IO',
      message: expect.stringContaining('force'),
    });
    expect(snapshot(out)).toEqual(before);
    await quantizeModel(folder, out, { nbits: 8, force: true });
    expect(snapshot(out)).not.toEqual(before);
    const source = snapshot(folder);
    for (const target of [folder, join(folder, 'inside'), join(folder, '..')]) {
      expect(await failure(() => quantizeModel(folder, target, { force: true }))).toMatchObject({
        code: 'ERR_INVALID_OPTION',
      });
    }
    expect(await failure(() => dequantizeModel(out, out, { force: true }))).toMatchObject({
      code: 'ERR_INVALID_OPTION',
    });
    expect(snapshot(folder)).toEqual(source);
  });

  it('is a file for a file, and says so', async () => {
    const file = freshPath('in.safetensors');
    fs.writeFileSync(file, encode(llama()));
    const out = freshPath('out');
    fs.mkdirSync(out);
    const error = await failure(() => quantizeModel(file, out, { force: true }));
    expect(error).toMatchObject({
      code: 'ERR_IO',
      message: expect.stringMatching(/is a folder, but the output is a file/),
    });
    await quantizeModel(file, join(out, 'x.safetensors'));
    expect(fs.readdirSync(out)).toEqual(['x.safetensors']);
    const deep = freshPath('a/b/x.safetensors');
    await quantizeModel(file, deep);
    expect(fs.readdirSync(join(deep, '..'))).toEqual(['x.safetensors']);
    expect(await failure(() => quantizeModel('/no/model', freshPath()))).toMatchObject({ code: 'ERR_IO' });
  });

  it('whose ending contradicts what it is gets a note', async () => {
    const folder = modelFolder([llama()]);
    const file = join(folder, 'model.safetensors');
    const note = async (input: string, name: string, dryRun = false) =>
      (await quantizeModel(input, freshPath(name), { dryRun })).notes.filter((text) => text.includes('whatever'));
    const gguf =
      'model.gguf is a safetensors file, whatever its name says: call it model.safetensors, or programs take';
    expect(await note(file, 'model.gguf')).toEqual([expect.stringContaining(gguf)]);
    expect(await note(file, 'model.BIN', true)).toEqual([expect.stringContaining('call it model.safetensors')]);
    const called = ['x.safetensors is a folder, as the input is one, whatever its name says.'];
    expect(await note(folder, 'x.safetensors')).toEqual(called);
    for (const name of ['x.safetensors', 'x', 'llama-3.2', 'llama.q4', 'v1.0'])
      expect(await note(file, name)).toEqual([]);
    expect(await note(folder, 'llama-3.2')).toEqual([]);
    const quantized = freshPath();
    await quantizeModel(folder, quantized);
    expect((await dequantizeModel(quantized, freshPath('x.onnx'))).notes).toEqual([
      expect.stringContaining('is a folder'),
    ]);
    expect((await dequantizeModel(quantized, freshPath())).notes).toEqual([]);
  });

  it.skipIf(process.platform === 'win32')('has the modes of the input, file by file', async () => {
    const folder = modelFolder([llama(), { 'x.weight': randomTensor([64, 64], 1) }], {
      files: { 'tokenizer.json': '' },
    });
    const [first, second] = [1, 2].map((i) => `model-0000${i}-of-00002.safetensors`) as [string, string];
    const index = 'model.safetensors.index.json';
    const modes = { [first]: 0o600, [second]: 0o640, 'config.json': 0o600, [index]: 0o640, 'tokenizer.json': 0o600 };
    for (const [name, mode] of Object.entries(modes)) fs.chmodSync(join(folder, name), mode);
    fs.chmodSync(folder, 0o700);
    const modeOf = (path: string) => fs.statSync(path).mode & 0o777;
    const [out, back, file] = [freshPath(), freshPath(), freshPath()];
    await quantizeModel(folder, out);
    await dequantizeModel(out, back);
    for (const output of [out, back]) {
      expect(modeOf(output)).toBe(0o700);
      for (const [name, mode] of Object.entries(modes))
        expect([name, modeOf(join(output, name))]).toEqual([name, mode]);
    }
    await quantizeModel(join(folder, second), file);
    expect(modeOf(file)).toBe(0o640);
  });

  it('is not there after an abort, wherever it comes', async () => {
    const folder = modelFolder([
      { [UP]: randomTensor([2304, 1024], 1), [DOWN]: randomTensor([2304, 1024], 2) },
      llama(),
    ]);
    const done = freshPath();
    let calls = 0;
    await quantizeModel(folder, done, { onProgress: () => calls++ });
    for (let stop = 1; stop <= calls; stop += Math.ceil(calls / 8)) {
      const out = freshPath();
      const controller = new AbortController();
      let seen = 0;
      const onProgress = () => {
        if (++seen === stop) controller.abort();
      };
      const { signal } = controller;
      expect((await failure(() => quantizeModel(folder, out, { signal, onProgress }))).name).toBe('AbortError');
      expect(beside(out)).toEqual([]);
    }
    const out = freshPath();
    const mine = AbortSignal.abort(new Error('mine'));
    expect((await failure(() => quantizeModel(folder, out, { signal: mine }))).message).toBe('mine');
    const boom = () => {
      throw new Error('of the caller');
    };
    expect((await failure(() => quantizeModel(folder, out, { onProgress: boom }))).message).toBe('of the caller');
    expect((await failure(() => dequantizeModel(done, out, { onProgress: boom }))).message).toBe('of the caller');
    expect(beside(out)).toEqual([]);
    await quantizeModel(folder, out);
    expect(snapshot(out)).toEqual(snapshot(done));
  });
});

describe('in a process of its own', () => {
  const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  const script = fileURLToPath(new URL('../fixtures/quantize-model.mjs', import.meta.url));

  /** Several chunks of weights: 25 MB in bfloat16. */
  let folder: string;
  beforeAll(() => {
    const big = {
      [UP]: randomTensor([3072, 2048], 1, 'bfloat16'),
      [DOWN]: randomTensor([3072, 2048], 2, 'bfloat16'),
    };
    folder = modelFolder([big, llama()]);
  });

  it('killed at any moment, leaves no output, and the next run gives the bytes of an undisturbed one', async () => {
    const done = freshPath();
    const { stdout, stderr } = await runFixture('quantize-model.mjs', [folder, done]);
    expect(stderr).toBe('');
    const { seconds } = JSON.parse(stdout.split('\n')[1]!) as { seconds: number };
    const out = freshPath();
    const kills = Number(process.env.HQQ_KILLS ?? 5);
    let partials = 0;
    for (let i = 0; i < kills; i++) {
      const child = spawn(process.execPath, [script, folder, out], { stdio: ['ignore', 'pipe', 'ignore'] });
      const closed = new Promise((resolve) => child.once('close', resolve)); // on a busy machine it may be done before it is killed
      await new Promise((resolve) => child.stdout.once('data', resolve));
      if (i === 0)
        while (beside(out).length === 0) await pause(1); // as early as there is something
      else await pause((seconds * 1000 * i) / kills);
      child.kill('SIGKILL');
      await closed;
      if (fs.existsSync(out)) fs.rmSync(out, { recursive: true }); // done before it was killed
      partials = Math.max(partials, beside(out).length);
      expect(beside(out).every((name) => name.endsWith('.partial'))).toBe(true);
      expect(beside(out).length).toBeLessThanOrEqual(1); // the one before was cleared
    }
    expect(partials).toBe(1);
    const last = await runFixture('quantize-model.mjs', [folder, out, '{"force":true}']);
    expect(last.status).toBe(0);
    expect(snapshot(out)).toEqual(snapshot(done));
    expect(beside(out)).toEqual([basename(out)]);
  });

  it.each([
    ['exit', 7, /^$/, '', ['out', 'a/b/out', 'file']],
    ['throw', 1, /Error: on purpose/, '', ['a/b/out']],
    ['worker-exit', 0, /^$/, 'worker 7\n', ['a/b/out', 'file']],
    ['worker-throw', 0, /^on purpose\n$/, 'worker 1\n', ['a/b/out']],
  ] as const)('that ends by itself, by %s, leaves nothing', async (how, status, stderr, stdout, outputs) => {
    for (const name of outputs) {
      const input = name === 'file' ? join(folder, 'model-00001-of-00002.safetensors') : folder;
      const output = freshPath(name);
      const result = await runFixture('end-midway.mjs', [how, input, output]);
      expect(result).toMatchObject({ status, stdout, stderr: expect.stringMatching(stderr) });
      const top = join(output, output.endsWith('a/b/out') ? '../../..' : '..');
      expect(fs.readdirSync(top)).toEqual([]);
    }
  });

  it('takes memory for a few chunks, whatever the size of a tensor', async () => {
    // One matrix of 192 MiB in bfloat16, written in pieces; 384 MiB if it were widened.
    const input = freshPath('big.safetensors');
    const [rows, cols] = [24576, 4096];
    const size = rows * cols * 2;
    const header = JSON.stringify({ 'big.weight': { dtype: 'BF16', shape: [rows, cols], data_offsets: [0, size] } });
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const piece = Buffer.from(randomTensor([1024, 1024], 3, 'bfloat16').bytes);
    const fd = fs.openSync(input, 'w');
    fs.writeSync(fd, Buffer.concat([length, Buffer.from(header)]));
    for (let at = 0; at < size; at += piece.length) fs.writeSync(fd, piece);
    fs.closeSync(fd);
    // Chunks are the same for all solvers.
    for (const options of [
      { nbits: 4, solver: 'minmax' },
      { nbits: 3, axis: 0 },
      { nbits: 4, axis: 0, groupSize: null, solver: 'minmax' },
    ]) {
      const out = freshPath('out.safetensors');
      const { stdout, stderr } = await runFixture('quantize-model.mjs', [input, out, JSON.stringify(options)]);
      expect(stderr).toBe('');
      const { peak } = JSON.parse(stdout.split('\n')[1]!) as { peak: number };
      expect([options, peak < 300 * 2 ** 20]).toEqual([options, true]);
      fs.rmSync(out);
    }
  });

  it('gives the same files in JavaScript and on every instruction set', async () => {
    const folder = modelFolder([llama('bfloat16')]);
    const outs: string[] = [];
    for (const env of [
      { HQQ_BACKEND: 'js' },
      { HQQ_BACKEND: 'native', HQQ_ISA: 'scalar' },
      { HQQ_BACKEND: 'native' },
    ]) {
      const out = freshPath();
      const { stderr, status } = await runFixture('quantize-model.mjs', [folder, out, '{"nbits":3}'], env);
      expect([stderr, status]).toEqual(['', 0]);
      outs.push(out);
    }
    expect(snapshot(outs[1]!)).toEqual(snapshot(outs[0]!));
    expect(snapshot(outs[2]!)).toEqual(snapshot(outs[0]!));
  });
});
