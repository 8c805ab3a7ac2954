import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { floats, gaussian, graph, model, node, tensor, value } from '../../interop/onnxruntime/graph.mjs';
import { onnx } from '../../lib/containers/onnx/container.js';
import { placeFiles } from '../../lib/files/beside.js';
import { asideOf, partialOf } from '../../lib/files/leftovers.js';
import { formatMark, OWN_RUN } from '../../lib/files/run-mark.js';
import { StagedOutput } from '../../lib/files/staged-output.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { expectError, folderOf } from '../containers/helpers.js';
import { beside } from '../containers/staged.js';

// A model and the file of its tensors beside it: both appear, or none.

const [K, N] = [64, 256];
const W = gaussian(K * N);
const BYTES = Buffer.from(W.buffer, W.byteOffset, W.byteLength);

/** A model whose matrix lies in `data`, or in itself. */
function network(data?: string): Buffer {
  const w =
    data === undefined
      ? floats('w', [K, N], W)
      : tensor('w', 'float32', [K, N], W, { location: data, offset: 0, length: BYTES.length });
  return model(
    graph({ nodes: [node('MatMul', ['x', 'w'], ['y'])], tensors: [w], outputs: [value('y', 'float32', ['rows', N])] }),
  );
}

/** A fresh folder with a model `a.onnx`, whose tensors lie in `data`. */
function apart(data = 'a.bin'): (name: string) => string {
  const folder = folderOf({});
  fs.writeFileSync(join(folder, 'a.onnx'), network(data));
  fs.writeFileSync(join(folder, data), BYTES);
  return (name) => join(folder, name);
}

describe('a model whose tensors lie beside it', () => {
  it('is not written over what the input has its tensors in', async () => {
    const at = apart('b.onnx_data');
    for (const dryRun of [true, false])
      await expectError(
        () => quantizeModel(at('a.onnx'), at('b.onnx'), { force: true, dryRun }),
        'ERR_INVALID_OPTION',
        /b\.onnx, whose tensors may lie in .*b\.onnx_data, which is /,
      );
    expect(beside(at('a.onnx'))).toEqual(['a.onnx', 'b.onnx_data']);
    expect(fs.readFileSync(at('b.onnx_data')).equals(BYTES)).toBe(true);
  });

  it('does not replace a file of tensors unasked, and says so before the work', async () => {
    const at = apart();
    fs.writeFileSync(at('c.onnx_data'), 'precious');
    const { notes } = await quantizeModel(at('a.onnx'), at('c.onnx'), { dryRun: true });
    expect(notes.join()).toMatch(/c\.onnx_data exists, where tensors of .*c\.onnx may lie\. Pass force/);
    let steps = 0;
    const run = () => quantizeModel(at('a.onnx'), at('c.onnx'), { onProgress: () => void steps++ });
    await expectError(run, 'ERR_IO', /c\.onnx_data exists/);
    expect(steps).toBe(0);
    expect(fs.readFileSync(at('c.onnx_data'), 'utf8')).toBe('precious');
  });

  it('leaves nothing where another file takes its place meanwhile', async () => {
    const at = apart();
    const onProgress = () => fs.writeFileSync(at('o.onnx'), 'of somebody else');
    await expectError(() => quantizeModel(at('a.onnx'), at('o.onnx'), { onProgress }), 'ERR_IO', /appeared meanwhile/);
    expect(beside(at('o.onnx'))).toEqual(['a.bin', 'a.onnx', 'o.onnx']);
  });

  it('stays with its tensors where the one that should replace it cannot be placed', async () => {
    const at = apart();
    await quantizeModel(at('a.onnx'), at('o.onnx'));
    const old = fs.readFileSync(at('o.onnx_data'));
    const placement = { path: at('gone'), target: at('o.onnx'), aside: at('old'), made: onnx, force: true };
    fs.writeFileSync(at('gone_data'), 'new');
    await expectError(() => placeFiles(placement, '_data'), 'ERR_IO', /Cannot put in place/);
    expect(fs.readFileSync(at('o.onnx_data')).equals(old)).toBe(true);
    expect(beside(at('o.onnx'))).toEqual(['a.bin', 'a.onnx', 'gone_data', 'o.onnx', 'o.onnx_data']);
  });

  it('is cleared of what a run left that was killed', async () => {
    const at = apart();
    await quantizeModel(at('a.onnx'), at('o.onnx'));
    const before = [beside(at('o.onnx')), fs.readFileSync(at('o.onnx_data'), 'hex')];
    const mark = formatMark({ ...OWN_RUN, pid: spawnSync(process.execPath, ['-e', '']).pid, start: '1' });
    const [partial, aside] = [partialOf(at('o.onnx'), mark), asideOf(at('o.onnx'), mark)];
    const next = async () => {
      await (await StagedOutput.begin(at('o.onnx'), 'file', { made: onnx, inputs: [], force: true })).abandon();
      expect([beside(at('o.onnx')), fs.readFileSync(at('o.onnx_data'), 'hex')]).toEqual(before);
    };
    // While it wrote; between the renames of both files, where the old one goes back; after them.
    fs.writeFileSync(partial, 'half');
    fs.writeFileSync(`${partial}_data`, 'half');
    await next();
    fs.renameSync(at('o.onnx_data'), `${aside}_data`);
    fs.writeFileSync(at('o.onnx_data'), 'new');
    fs.writeFileSync(partial, 'new');
    await next();
    fs.writeFileSync(`${aside}_data`, 'old');
    await next();
    // Where hard links are, a file that was put in place keeps its first name until the other one is, too.
    fs.renameSync(at('o.onnx_data'), `${aside}_data`);
    fs.writeFileSync(`${partial}_data`, 'new');
    fs.linkSync(`${partial}_data`, at('o.onnx_data'));
    fs.writeFileSync(partial, 'new');
    await next();
  });

  for (const [when, call, name, force] of [
    ['before its own file was put in place', 'link', 'o.onnx', false],
    ['before its own file was put in place, with force', 'rename', 'o.onnx', true],
    ['after that', 'rm', '.partial_data', false],
  ] as const)
    it(`is whole after a run that was killed ${when} and another one`, async () => {
      const at = apart();
      const script = `
        const fs = require('node:fs/promises');
        const { existsSync } = require('node:fs');
        const [, dist, input, output] = process.argv;
        const real = fs.${call};
        fs.${call} = (...args) => {
          const isLast = args.some((path) => String(path).endsWith('${name}')) && existsSync(output + '_data');
          if (isLast) process.kill(process.pid, 'SIGKILL');
          return real(...args);
        };
        require(dist).quantizeModel(input, output, { force: ${force}, importance: 'none' });`;
      const dist = join(import.meta.dirname, '../../dist/index.cjs');
      const { signal, stderr } = spawnSync(process.execPath, ['-e', script, dist, at('a.onnx'), at('o.onnx')]);
      expect([signal, `${stderr}`]).toEqual(['SIGKILL', '']);
      const isPlaced = call === 'rm';
      expect(beside(at('o.onnx')).includes('o.onnx')).toBe(isPlaced);
      expect(beside(at('o.onnx'))).toContain('o.onnx_data');
      await quantizeModel(at('a.onnx'), at('o.onnx'), { force: isPlaced });
      expect(beside(at('o.onnx'))).toEqual(['a.bin', 'a.onnx', 'o.onnx', 'o.onnx_data']);
    });

  it('takes its tensors along when one without such a file replaces it', async () => {
    const at = apart();
    await quantizeModel(at('a.onnx'), at('o.onnx'));
    expect(beside(at('o.onnx'))).toEqual(['a.bin', 'a.onnx', 'o.onnx', 'o.onnx_data']);
    fs.writeFileSync(at('p.onnx'), network());
    await quantizeModel(at('p.onnx'), at('o.onnx'), { force: true });
    expect(beside(at('o.onnx'))).toEqual(['a.bin', 'a.onnx', 'o.onnx', 'p.onnx']);
    // What the old model does not speak of is not its own.
    fs.writeFileSync(at('o.onnx_data'), 'of another model');
    await quantizeModel(at('p.onnx'), at('o.onnx'), { force: true });
    expect(fs.readFileSync(at('o.onnx_data'), 'utf8')).toBe('of another model');
  });
});

describe('a folder that holds more than the ONNX model', () => {
  for (const other of ['model.safetensors', 'model-q4.gguf', 'decoder.onnx'])
    it(`is not replaced: ${other}`, async () => {
      const [input, output] = [
        folderOf({ 'config.json': '{}' }),
        folderOf({ 'config.json': '{}', [other]: 'precious' }),
      ];
      for (const folder of [input, output]) {
        fs.mkdirSync(join(folder, 'onnx'));
        fs.writeFileSync(join(folder, 'onnx/model.onnx'), network());
      }
      const run = () => quantizeModel(input, output, { force: true });
      await expectError(run, 'ERR_IO', new RegExp(`holds other models \\("${other}"\\)`));
      expect(fs.readFileSync(join(output, other), 'utf8')).toBe('precious');
      fs.rmSync(join(output, other));
      await run();
    });
});
