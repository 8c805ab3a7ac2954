import * as fs from 'node:fs';
import fsPromises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import {
  beside,
  CONFIG,
  failure,
  freshPath,
  llama,
  modelFolder,
  numbersOf,
  randomTensor,
  readBack,
  snapshot,
  tensorOf,
} from '../support/checkpoints.js';

const LAYER = 'model.layers.0.self_attn.q_proj';

const hexOf = (tensors: ReturnType<typeof readBack>, name: string) =>
  Buffer.from(tensors.get(name)!.bytes).toString('hex');

/** Runs `action` while folders called `sub` cannot be opened. */
async function whereSubFails<T>(code: string, action: () => Promise<T>): Promise<T> {
  const { opendir } = fsPromises;
  fsPromises.opendir = ((path: string, ...rest: []) => {
    if (path.endsWith('sub')) throw Object.assign(new Error(code), { code });
    return opendir(path, ...rest);
  }) as typeof opendir;
  syncBuiltinESMExports();
  try {
    return await action();
  } finally {
    fsPromises.opendir = opendir;
    syncBuiltinESMExports();
  }
}

describe('a model folder', () => {
  it('may lose a folder while it is listed; one that cannot be listed is named', async () => {
    const folder = modelFolder([llama()], { files: { 'sub/merges.txt': 'x' } });
    await (await whereSubFails('ENOENT', () => openModel(folder))).close();
    const { message } = await whereSubFails('EACCES', () => failure(() => openModel(folder)));
    expect(message).toBe(
      `Cannot list ${join(folder, 'sub')}. Permission is denied. Check who may read and write there.`,
    );
    const gone = await failure(() => openModel(`${folder}-gone`));
    expect(gone.message).toMatch(/-gone\. It does not exist/);
  });

  it('keeps shards, other files and metadata; a bias goes where its weight goes', async () => {
    const source = llama('bfloat16');
    const names = Object.keys(source);
    const pick = (keep: (name: string) => boolean) =>
      Object.fromEntries(names.filter(keep).map((name) => [name, source[name]!]));
    const first = pick((name) => !name.includes('layers.1') && !name.endsWith('bias'));
    const second = pick((name) => name.includes('layers.1') || name.endsWith('bias'));
    const folder = modelFolder([first, second], {
      files: { 'tokenizer.json': '{"a": 1}', 'sub/merges.txt': 'x', 'pytorch_model.bin': 'old' },
    });
    const out = freshPath();
    const report = await quantizeModel(folder, out);
    expect(fs.readdirSync(out).sort()).toEqual([
      'config.json',
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
      'sub',
      'tokenizer.json',
    ]);
    expect(fs.readFileSync(join(out, 'sub/merges.txt'), 'utf8')).toBe('x');
    expect(report.notes.join()).toContain('pytorch_model.bin');
    const shard = readBack(join(out, 'model-00001-of-00002.safetensors'));
    expect(shard.get(`${LAYER}.bias`)!.dtype).toBe('F16');
    expect(numbersOf(shard.get(`${LAYER}.bias`)!)).toEqual(numbersOf(source[`${LAYER}.bias`]!));
    const index = JSON.parse(fs.readFileSync(join(out, 'model.safetensors.index.json'), 'utf8'));
    const all = readBack(out);
    expect(Object.keys(index.weight_map).sort()).toEqual([...all.keys()].sort());
    expect(index.weight_map[`${LAYER}.bias`]).toBe('model-00001-of-00002.safetensors');
    expect(index.metadata.total_size).toBe([...all.values()].reduce((sum, { bytes }) => sum + bytes.byteLength, 0));
    expect(hexOf(all, 'lm_head.weight')).toBe(Buffer.from(source['lm_head.weight']!.bytes).toString('hex'));
    const sizes = fs
      .readdirSync(out)
      .filter((name) => name.endsWith('.safetensors'))
      .map((name) => fs.statSync(join(out, name)).size);
    expect(report.totals.bytesAfter).toBe(sizes.reduce((a, b) => a + b));
  });

  it('has no file for a shard of which nothing is left', async () => {
    const second = { 'a.bias': randomTensor([64], 2) };
    const folder = modelFolder([{ 'a.weight': randomTensor([64, 64], 1) }, second]);
    const out = freshPath();
    const plan = await quantizeModel(folder, out, { dryRun: true });
    const report = await quantizeModel(folder, out);
    expect(fs.readdirSync(out).sort()).toEqual([
      'config.json',
      'model-00001-of-00002.safetensors',
      'model.safetensors.index.json',
    ]);
    expect(plan.totals.bytesAfter).toBe(report.totals.bytesAfter);
    expect(readBack(out).has('a.bias')).toBe(true);
  });

  it('has quantization_config in the text of its config.json, and all else as it was', async () => {
    const out = freshPath();
    await quantizeModel(modelFolder([llama()]), out, { nbits: 3 });
    const text = fs.readFileSync(join(out, 'config.json'), 'utf8');
    expect(text.startsWith(CONFIG.trimEnd().slice(0, -2))).toBe(true);
    const parsed = JSON.parse(text.replace('Infinity', '1'));
    expect(parsed.quantization_config).toEqual({
      quant_config: {
        offload_meta: false,
        scale_quant_params: null,
        weight_quant_params: {
          axis: 1,
          channel_wise: true,
          group_size: 64,
          nbits: 3,
          optimize: true,
          round_zero: false,
          view_as_float: false,
        },
        zero_quant_params: null,
      },
      quant_method: 'hqq',
      skip_modules: ['lm_head'],
    });
  });

  it('without a config.json is told what Python needs', async () => {
    const report = await quantizeModel(modelFolder([llama()], { config: '' }), freshPath());
    expect(report.notes.join()).toMatch(/no config\.json/);
  });

  it('notes that one bit leaves nothing of use', async () => {
    const out = freshPath();
    const { notes } = await quantizeModel(modelFolder([llama()]), out, { nbits: 1 });
    expect(notes[0]).toMatch(/^8 of 8 tensors lost half .* Use more bits or smaller groups\.$/);
    expect((await quantizeModel(modelFolder([llama()]), freshPath(), { nbits: 4 })).notes).toEqual([]);
  });

  it('notes tensors of which zeros would have kept more', async () => {
    const name = 'model.layers.0.mlp.down_proj.weight';
    // Two large weights of either sign in each group, and the rest next to nothing, which becomes a third of that.
    const outliers = Float32Array.from({ length: 64 * 128 }, (_, i) => [1, -1][i % 64] ?? 1e-3);
    const folder = modelFolder([{ ...llama(), [name]: tensorOf(outliers, [64, 128]) }]);
    const config = { nbits: 2, solver: 'minmax' } as const;
    const { notes, tensors } = await quantizeModel(folder, freshPath(), config);
    expect(tensors.find((tensor) => tensor.name === name)!.relativeError).toBeGreaterThan(1.8);
    expect(notes.at(-1)).toMatch(
      /^1 of 8 tensors came out further from the weights than zeros are: the worst is "model\.layers\.0\.mlp\.down_proj\.weight", with a relative error of 18\d %\. .* or leave it dense \(exclude, --exclude\)\.$/,
    );
    expect((await quantizeModel(folder, freshPath(), { ...config, nbits: 4 })).notes).toEqual([]);
  });

  it('refuses a file whose layers need a larger header than is read, before it writes', async () => {
    const weight = randomTensor([8, 8], 1);
    const source = Object.fromEntries(
      Array.from({ length: 600 }, (_, i) => [`${'x'.repeat(3000)}${i}.weight`, weight]),
    );
    const error = await failure(() => quantizeModel(modelFolder([source]), freshPath(), { groupSize: 8 }));
    expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(error.message).toMatch(
      /at most 33\.6 MB .* would need 34\.8 MB or more: 600 layers of 19 tensors\. Split the model/,
    );
  });

  it('refuses a file whose layers need more tensors than are read', async () => {
    const weight = randomTensor([8, 8], 1);
    const source = Object.fromEntries(Array.from({ length: 13_900 }, (_, i) => [`${i}.weight`, weight]));
    const error = await failure(() => quantizeModel(modelFolder([source]), freshPath(), { groupSize: 8 }));
    expect(error.message).toMatch(
      /at most 262,144 tensors for each file, .* would need 264,100: 13,900 layers of 19 tensors\. Split/,
    );
  });

  it('refuses shards whose layers need more tensors in all than are read', async () => {
    const weight = randomTensor([8, 8], 1);
    const shard = (s: number) =>
      Object.fromEntries(Array.from({ length: 5300 }, (_, i) => [`${s}.${i}.weight`, weight]));
    const folder = modelFolder([shard(0), shard(1)]);
    const out = freshPath();
    const error = await failure(() => quantizeModel(folder, out, { groupSize: 8 }));
    expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(error.message).toMatch(
      /at most 200000 tensors, for shards of \d+ bytes, but the output would have 201400: it could not/,
    );
    expect(beside(out)).toEqual([]);
  });

  it('gives the same bytes on every backend, for any number of threads', async () => {
    const folder = modelFolder([llama('float16')]);
    const outs = [freshPath(), freshPath()];
    await quantizeModel(folder, outs[0]!, { threads: 1 });
    await quantizeModel(folder, outs[1]!, { threads: 7 });
    expect(snapshot(outs[0]!)).toEqual(snapshot(outs[1]!));
  });

  it('can be planned without being written', async () => {
    const folder = modelFolder([llama()]);
    const out = freshPath();
    const plan = await quantizeModel(folder, out, { dryRun: true });
    expect(beside(out)).toEqual([]);
    const report = await quantizeModel(folder, out);
    expect(plan.totals.bytesAfter).toBe(report.totals.bytesAfter);
    expect(plan.tensors.map(({ name }) => name)).toEqual(report.tensors.map(({ name }) => name));
    expect(plan.tensors[0]!.meanAbsError).toBeNaN();
  });

  it('is not planned where it could never be written', async () => {
    const folder = modelFolder([llama()]);
    const dry = (output: string, force = false) =>
      failure(() => quantizeModel(folder, output, { dryRun: true, force }));
    for (const output of [folder, join(folder, 'inside')]) {
      expect((await dry(output, true)).message).toContain('Expected an output apart from the input');
    }
    const other = freshPath();
    fs.mkdirSync(other);
    fs.writeFileSync(join(other, 'thesis.tex'), '');
    for (const force of [false, true])
      expect((await dry(other, force)).message).toContain('does not look like a model folder');
  });

  it('is planned where it would have to replace something, with a note, and nothing is touched', async () => {
    const folder = modelFolder([llama()]);
    const standing = modelFolder([llama()]);
    const before = snapshot(standing);
    const plan = (output: string, force: boolean) => quantizeModel(folder, output, { dryRun: true, force });
    const { notes, ...rest } = await plan(standing, false);
    expect(notes).toEqual([
      expect.stringMatching(/the run itself would fail\. .* exists\. Pass force: true \(--force\)/),
    ]);
    const forced = await plan(standing, true);
    expect(forced.notes).toEqual([]);
    expect(rest.totals.bytesAfter).toBe(forced.totals.bytesAfter);
    expect((await plan(freshPath(), false)).notes).toEqual([]);
    const deep = freshPath('a');
    expect((await plan(join(deep, 'b', 'out'), false)).notes).toEqual([]);
    expect(beside(deep)).toEqual([]);
    const link = freshPath('link');
    fs.symlinkSync('nowhere', link);
    const { notes: lost } = await plan(join(link, 'out'), true);
    expect(lost).toEqual([
      expect.stringMatching(/would fail\. .*link, where the output would be, is a link that leads/),
    ]);
    expect(snapshot(standing)).toEqual(before);
  });
});
