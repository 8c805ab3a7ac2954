import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { Queue } from 'bullmq';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { quantizeModel as quantizeHere } from '../../lib/calibrate/weighing/quantize.js';
import type { Progress } from '../../lib/models/report.js';
import { quantizeModel } from '../../lib/queue/entry.js';
import type { WorkerOptions } from '../../lib/queue/options.js';
import {
  beside,
  encode,
  failure,
  freshPath,
  llama,
  modelFolder,
  randomTensor,
  type Source,
  snapshot,
  tensorOf,
} from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';
import { SharedQueue } from '../support/queue.js';
import { hasRedis } from '../support/redis.js';
import { threeShards, timeless } from '../support/shards.js';

const many = (count: number, seed = 1): readonly Source[] =>
  Array.from({ length: count }, (_, i) => ({ [`layers.${i}.up.weight`]: randomTensor([64, 64], seed + i) }));

describe.skipIf(!hasRedis())('a queue', () => {
  const shared = new SharedQueue();
  const { redis, workers, root: ROOT } = shared;
  const work = (more?: Partial<WorkerOptions>) => shared.work(more);
  beforeAll(() => redis.start());
  afterEach(() => shared.rest());
  afterAll(() => redis.remove());

  /** Jobs of all states that Redis has. */
  async function jobs(name = 'hqq'): Promise<number> {
    const queue = new Queue(name, { connection: { url: redis.url } });
    const counts = Object.values(await queue.getJobCounts());
    await queue.close();
    return counts.reduce((sum, count) => sum + count, 0);
  }

  it('has workers write the bytes and the report of one machine, and keeps nothing', async () => {
    const input = threeShards();
    const options = { nbits: 4, overrides: { '*k_proj': { nbits: 3, axis: 0 } }, exclude: '*gate_proj' } as const;
    const whole = freshPath();
    const report = await quantizeHere(input, whole, options);
    const [a, b] = [await work(), await work()];
    const output = freshPath('deep/er/out');
    const seen: Progress[] = [];
    const made = await quantizeModel(input, output, {
      ...{ ...options, queue: { url: redis.url, root: ROOT }, onProgress: (progress) => seen.push(progress) },
    });
    expect(snapshot(output)).toEqual(snapshot(whole));
    expect(timeless(made)).toEqual(timeless(report));
    expect(made.output).toBe(output);
    expect(beside(output)).toEqual(['out']);
    expect(await jobs()).toBe(0);
    expect([...a, ...b].filter(({ kind }) => kind === 'done').map(({ what }) => what)).toHaveLength(4);
    expect(seen.every(({ weightsDone }, i) => i === 0 || weightsDone >= seen[i - 1]!.weightsDone)).toBe(true);
    expect(seen.at(-1)?.weightsTotal).toBe(report.totals.weights);
  });

  it('of a single file gives a single file, by absolute paths, in the place of another', async () => {
    const input = freshPath('in.safetensors');
    fs.writeFileSync(input, encode(llama()));
    const [whole, output] = [freshPath('whole.safetensors'), freshPath('out.safetensors')];
    await quantizeHere(input, whole, { nbits: 3 });
    fs.copyFileSync(input, output);
    await work();
    expect((await failure(() => quantizeModel(input, output, { nbits: 3, queue: redis.url }))).message).toMatch(
      /exists. Pass force/,
    );
    await quantizeModel(input, output, { nbits: 3, force: true, queue: redis.url });
    expect(snapshot(output)).toEqual(snapshot(whole));
  });

  it('finds importance once, and saved statistics and texts are what they are on one machine', async () => {
    const { saveStatistics } = await import('../../lib/calibrate/statistics-file.js');
    const { collectImportance } = await import('../../lib/calibrate/collect.js');
    const statistics = freshPath('statistics.safetensors');
    await saveStatistics(statistics, await collectImportance(SHIPPED, { tokens: 64 }), { force: false, seed: 0 });
    const text = freshPath('text.txt');
    fs.writeFileSync(text, 'It was a bright cold day, and the clocks were striking.');
    const input = freshPath('model'); // below the root
    fs.cpSync(SHIPPED, input, { recursive: true });
    const events = await work();
    for (const importance of ['random', statistics, `text:${text}`] as const) {
      const options = { nbits: 2, importance, tokens: 64, include: '*.layers.0.*' } as const;
      const [whole, output] = [freshPath(), freshPath()];
      const report = await quantizeHere(input, whole, options);
      expect(report.importance).not.toBe('none');
      const made = await quantizeModel(input, output, { ...options, queue: { url: redis.url, root: ROOT } });
      expect(snapshot(output)).toEqual(snapshot(whole));
      expect(timeless(made)).toEqual(timeless(report));
    }
    expect(events.filter(({ kind, what }) => kind === 'done' && what === 'importance')).toHaveLength(2);
  });

  it('keeps runs apart that share it', async () => {
    const [one, two] = [modelFolder(many(8)), modelFolder(many(8, 100))];
    await Promise.all([work({ concurrency: 2 }), work()]);
    const outputs = [freshPath(), freshPath()];
    await Promise.all([one, two].map((input, i) => quantizeModel(input, outputs[i]!, { nbits: 4, queue: redis.url })));
    for (const [i, input] of [one, two].entries()) {
      const whole = freshPath();
      await quantizeHere(input, whole, { nbits: 4 });
      expect(snapshot(outputs[i]!)).toEqual(snapshot(whole));
    }
    expect(await jobs()).toBe(0);
  });

  it('ends with what the data make impossible, told by the name of the shard, tried once', async () => {
    const shards = many(6);
    const bad = tensorOf(
      Float32Array.from({ length: 4096 }, (_, i) => (i === 77 ? NaN : i)),
      [64, 64],
    );
    const input = modelFolder([...shards.slice(0, 3), { 'layers.3.up.weight': bad }, ...shards.slice(4)]);
    const events = await work();
    const output = freshPath('new/out');
    const error = await failure(() => quantizeModel(input, output, { nbits: 4, queue: redis.url }));
    expect(error).toMatchObject({
      code: 'ERR_NON_FINITE_WEIGHT',
      message: expect.stringMatching(/^model-00004-of-00006\.safetensors: .*NaN/),
    });
    expect(events.filter(({ kind }) => kind === 'failed')).toHaveLength(1);
    expect(fs.existsSync(dirname(output))).toBe(false);
    expect(await jobs()).toBe(0);
  });

  it('can be left and joined again; whoever aborts ends the run and clears what was written', async () => {
    const input = modelFolder(many(5));
    const output = freshPath();
    const queue = { url: redis.url, name: 'left' };
    const leaving = new AbortController();
    const left = failure(() =>
      quantizeModel(input, output, {
        ...{ nbits: 4, queue: { ...queue, leave: leaving.signal } },
        onProgress: () => leaving.abort(new Error('left')),
      }),
    );
    expect((await left).message).toBe('left');
    expect(beside(output)).toEqual(['out.queue']);
    expect((await failure(() => quantizeModel(input, output, { queue }))).message).toMatch(
      /is being written by another run.*attach/,
    );

    // Nobody works yet: the second who follows it ends it.
    const ending = new AbortController();
    const ended = failure(() =>
      quantizeModel(input, output, {
        ...{ queue: { ...queue, attach: true }, signal: ending.signal },
        onProgress: () => ending.abort(new Error('ended')),
      }),
    );
    expect((await ended).message).toBe('ended');
    expect(beside(output)).toEqual([]);
    expect(await jobs('left')).toBe(0);
    const none = await failure(() => quantizeModel(input, output, { queue: { ...queue, attach: true } }));
    expect(none.message).toMatch(/^Expected a run that writes .*out, to follow it, but there is none/);

    // A run that ended when nobody looked is there for who asks, and in nobody's way.
    for (const again of [true, false]) {
      const gone = new AbortController();
      await failure(() =>
        quantizeModel(input, output, {
          ...{ nbits: 4, force: true, queue: { ...queue, leave: gone.signal } },
          onProgress: () => gone.abort(new Error('left')),
        }),
      );
      await work({ name: 'left' });
      while (
        !fs.readdirSync(`${output}.queue`).some((run) => fs.existsSync(join(`${output}.queue`, run, 'report.json')))
      )
        await new Promise((resolve) => setTimeout(resolve, 50));
      const whole = freshPath();
      await quantizeHere(input, whole, { nbits: 4 });
      expect(snapshot(output)).toEqual(snapshot(whole));
      if (again) await quantizeModel(input, output, { nbits: 4, queue: { ...queue, attach: true } });
      else await quantizeModel(input, output, { nbits: 4, force: true, queue });
      expect(beside(output)).toEqual(['out']);
    }
  });

  it('ends jobs under way when its run is ended', async () => {
    const big = { 'layers.0.up.weight': randomTensor([1024, 1024], 1) };
    const input = modelFolder([big, ...many(2)]);
    await work();
    const output = freshPath();
    const controller = new AbortController();
    const error = await failure(() =>
      quantizeModel(input, output, {
        ...{ nbits: 3, solver: 'joint', queue: redis.url, signal: controller.signal },
        onProgress: ({ weightsDone }) => weightsDone < 1024 * 1024 && controller.abort(new Error('enough')),
      }),
    );
    expect(error.message).toBe('enough');
    expect(beside(output)).toEqual([]);
    expect(await jobs()).toBe(0);
  });

  it('gives jobs back that a worker leaves, whoever is closed', async () => {
    const input = modelFolder([{ 'layers.0.up.weight': randomTensor([512, 1024], 1) }, ...many(2)]);
    const output = freshPath();
    const first = await work();
    const made = quantizeModel(input, output, { nbits: 3, solver: 'joint', queue: redis.url });
    while (first.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await workers.splice(0)[0]!.close({ now: true });
    await work();
    await made;
    const whole = freshPath();
    await quantizeHere(input, whole, { nbits: 3, solver: 'joint' });
    expect(snapshot(output)).toEqual(snapshot(whole));
  });
});
