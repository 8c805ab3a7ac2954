import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import type { ShardResult } from '../../lib/models/quantize/check-shards.js';
import type { ModelPlan } from '../../lib/models/quantize/plan.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { finishShards, planConversion, writeShard } from '../../lib/models/quantize/shards.js';
import { bundled } from '../support/bundle.js';
import { beside, encode, failure, freshPath, llama, modelFolder, snapshot, tensorOf } from '../support/checkpoints.js';
import { threeShards, timeless } from '../support/shards.js';

const run = promisify(execFile);
const json = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

async function writeAll(plan: ModelPlan, input: string, order: readonly string[]) {
  const paths = new Map(order.map((file) => [file, freshPath(file)]));
  const results: ShardResult[] = [];
  for (const file of order) results.push(json(await writeShard(json(plan), file, input, paths.get(file)!)));
  return { paths, results };
}

describe('a plan', () => {
  it('is plain JSON, and its shards are written one by one, in any order and process, to the bytes of quantizeModel', async () => {
    const input = threeShards();
    const options = { nbits: 4, overrides: { '*k_proj': { nbits: 3, axis: 0 } }, exclude: '*gate_proj' } as const;
    const whole = freshPath();
    const report = await quantizeModel(input, whole, options);
    expect(report.tensors.map(({ metaDtype }) => metaDtype)).toContain('float32');

    const plan = await planConversion(input, options);
    expect(json(plan)).toEqual(plan);
    const files = plan.shards.map(({ file }) => file);
    expect(files).toHaveLength(3);
    const { paths, results } = await writeAll(plan, input, [files[2]!, files[0]!]);

    // The input is elsewhere on the other machine.
    const moved = freshPath('moved');
    fs.cpSync(input, moved, { recursive: true });
    const planFile = freshPath('plan.json');
    fs.writeFileSync(planFile, JSON.stringify(plan));
    const last = freshPath(files[1]!);
    const { stdout } = await run(process.execPath, [await bundled('write-shard.ts'), planFile, files[1]!, moved, last]);
    paths.set(files[1]!, last);
    results.push(JSON.parse(stdout) as ShardResult);

    const output = freshPath();
    const finished = await finishShards(json(plan), { input, results, paths, output });
    expect(snapshot(output)).toEqual(snapshot(whole));
    expect(timeless(finished)).toEqual(timeless(report));
  });

  it('of a single file gives a single file', async () => {
    const input = freshPath('in.safetensors');
    fs.writeFileSync(input, encode(llama()));
    const [whole, output] = [freshPath('whole.safetensors'), freshPath('out.safetensors')];
    await quantizeModel(input, whole);
    const plan = await planConversion(input);
    const parts = await writeAll(plan, input, ['in.safetensors']);
    await finishShards(plan, { input, ...parts, output });
    expect(snapshot(output)).toEqual(snapshot(whole));
  });

  it('is of one model: another, or a changed one, is refused before anything is written', async () => {
    const input = threeShards();
    const plan = await planConversion(input);
    const { file } = plan.shards[0]!;
    const path = freshPath('shard');
    const refused = async (pattern: RegExp, other = plan) => {
      const error = await failure(() => writeShard(other, file, input, path));
      expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringMatching(pattern) });
      expect(beside(path)).toEqual([]);
    };
    const changed =
      /to be the model that the plan was made for, but it is another, or has changed since: its digest is/;
    const config = join(input, 'config.json');
    const text = fs.readFileSync(config, 'utf8');
    fs.writeFileSync(config, text.replace('no known', 'another'));
    await refused(changed);
    fs.writeFileSync(config, text);
    // The same names and sizes, other weights.
    const last = join(input, plan.shards[2]!.file);
    const bytes = fs.readFileSync(last);
    const at = bytes.length - 64 * 192 * 4;
    const flip = () => (bytes[at] = bytes[at]! ^ 1);
    flip();
    fs.writeFileSync(last, bytes);
    await refused(changed);
    flip();
    fs.writeFileSync(last, bytes);
    await refused(/a plan of version 1, got 2/, { ...plan, version: 2 as 1 });
    const { shards } = json(plan);
    const edited = { ...plan, shards: [{ ...shards[0]!, copies: ['none'] }, ...shards.slice(1)] };
    await refused(
      /of model-00001.* to name tensors of the model where they are, but not "none"\. Make the plan anew/,
      edited,
    );
    const unknown = await failure(() => writeShard(plan, 'x', input, path));
    expect(unknown.message).toMatch(/Expected a shard of the plan \("model-00001.*\), got "x"\./);
    await writeShard(plan, file, input, path);
  });

  it('is finished when every shard is there, and not before', async () => {
    const input = threeShards();
    const plan = await planConversion(input);
    const [first, ...others] = plan.shards.map(({ file }) => file);
    const { paths, results } = await writeAll(plan, input, others);
    const output = freshPath();
    const missing = await failure(() => finishShards(plan, { input, paths, results, output }));
    expect(missing.message).toContain(`Expected every shard of the plan to be written, but not ${first}.`);
    const more = await writeAll(plan, input, [first!]);
    const all = { paths: new Map([...paths, ...more.paths]), results: [...results, ...more.results] };
    fs.truncateSync(all.paths.get(first!)!, 1000);
    const short = await failure(() => finishShards(plan, { input, ...all, output }));
    expect(short.message).toMatch(/of the plan, got 1000 bytes where it has \d+\. Write the shard again/);
    expect(beside(output)).toEqual([]);
  });

  it('takes no result of another shape', async () => {
    const input = freshPath('in.safetensors');
    fs.writeFileSync(input, encode(llama()));
    const plan = await planConversion(input);
    const { paths, results } = await writeAll(plan, input, ['in.safetensors']);
    const output = freshPath('out.safetensors');
    // biome-ignore lint/suspicious/noExplicitAny: what is spoilt has no type
    type Loose = Record<string, any>;
    const flaws: readonly (readonly [(result: Loose) => unknown, RegExp])[] = [
      [(r) => delete r.layers, /got undefined as its layers/],
      [(r) => (r.computeSeconds = 'long'), /got "long" as computeSeconds/],
      [(r) => r.layers.pop(), /got no result of layer "/],
      [(r) => (r.layers[0] = null), /got a result of layer undefined/],
      [(r) => (r.layers[1] = r.layers[0]), /told of already/],
      [(r) => (r.layers[0].layer.site.shape = [1, 1]), /got another layer\.site of layer "/],
      [(r) => delete r.layers[0].layer.form.config, /got another layer\.form\.config of layer "/],
      [(r) => delete r.layers[0].sums, /got another sums of layer "/],
      [(r) => (r.layers[0].sums.absError = null), /got another sums\.absError of layer "/],
      [(r) => (r.layers[0].layer.form.metaDtype = 'none'), /got forms of layers that are none/],
    ];
    for (const [spoil, message] of flaws) {
      const spoilt = json(results);
      spoil(spoilt[0]!);
      const error = await failure(() => finishShards(plan, { input, paths, results: spoilt, output }));
      expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringMatching(message) });
      expect(error.message).toMatch(/^Expected the result of in\.safetensors to be what writeShard gave.*again\.$/);
      expect(beside(output)).toEqual([]);
    }
    await finishShards(plan, { input, paths, results, output });
  });

  it('takes no file for a shard that is another of the same size, or a link, and leaves shards as they are', async () => {
    const input = freshPath('in.safetensors');
    fs.writeFileSync(input, encode(llama()), { mode: 0o640 });
    const plan = await planConversion(input);
    const [file, output] = ['in.safetensors', freshPath('out.safetensors')];
    const { paths, results } = await writeAll(plan, input, [file]);
    const path = paths.get(file)!;
    const refused = async (from: string, pattern: RegExp) => {
      const parts = { input, results, paths: new Map([[file, from]]), output };
      const error = await failure(() => finishShards(plan, parts));
      expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringMatching(pattern) });
      expect(beside(output)).toEqual([]);
    };
    const bytes = fs.readFileSync(path);
    const [renamed, retyped, link] = [freshPath('a'), freshPath('b'), freshPath('c')];
    const edited = (from: string, to: string) => Buffer.from(bytes.toString('latin1').replace(from, to), 'latin1');
    fs.writeFileSync(renamed, edited('k_proj.W_q', 'x_proj.W_q'));
    await refused(renamed, /of the plan, got a file without its tensor ".*k_proj\.W_q", or with it elsewhere\. Write/);
    fs.writeFileSync(retyped, edited('"dtype":"F16"', '"dtype":"I16"'));
    await refused(retyped, /of the plan, got a file without its tensor/);
    fs.symlinkSync(path, link);
    await refused(link, /of the plan, got a symbolic link/);

    for (const mode of [0o600, 0o640]) {
      fs.chmodSync(path, mode);
      await finishShards(plan, { input, results, paths, output, force: true });
      expect([fs.statSync(path).mode & 0o777, fs.statSync(output).mode & 0o777]).toEqual([mode, 0o640]);
      expect(fs.readFileSync(output).equals(bytes)).toBe(true);
    }
  });

  it('that fails or is aborted leaves no shard', async () => {
    const input = modelFolder([{ 'a.weight': tensorOf(new Array(64 * 64).fill(NaN), [64, 64]) }]);
    const path = freshPath('shard');
    const plan = await planConversion(input);
    const error = await failure(() => writeShard(plan, 'model.safetensors', input, path));
    expect(error.code).toBe('ERR_NON_FINITE_WEIGHT');
    const stop = AbortSignal.abort(new Error('enough'));
    expect((await failure(() => writeShard(plan, 'model.safetensors', input, path, { signal: stop }))).message).toBe(
      'enough',
    );
    expect(beside(path)).toEqual([]);
  });
});
