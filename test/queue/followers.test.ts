import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createWorker, quantizeModel } from '../../lib/queue/entry.js';
import type { WorkerEvent } from '../../lib/queue/options.js';
import type { QueueWorker } from '../../lib/queue/worker.js';
import { beside, failure, freshPath, modelFolder, randomTensor } from '../support/checkpoints.js';
import { hasRedis, Redis } from '../support/redis.js';

// Several who follow one run, or work at it, of whom one knows less than the others.

describe.skipIf(!hasRedis())('of those who share a run', () => {
  const redis = new Redis();
  const workers: QueueWorker[] = [];
  beforeAll(() => redis.start());
  afterEach(async () => {
    await Promise.all(workers.splice(0).map((worker) => worker.close({ now: true })));
  });
  afterAll(() => redis.remove());

  const ROOT = fs.realpathSync(dirname(dirname(freshPath())));
  const input = modelFolder([0, 1, 2].map((i) => ({ [`layers.${i}.up.weight`]: randomTensor([64, 64], i + 1) })));

  async function work(name: string, root = ROOT): Promise<WorkerEvent[]> {
    const events: WorkerEvent[] = [];
    const onEvent = (event: WorkerEvent) => void events.push(event);
    workers.push(await createWorker({ url: redis.url, name, root, onEvent, threads: 1 }));
    return events;
  }

  async function until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  it('all are told how it ended', async () => {
    const output = freshPath();
    const queue = { url: redis.url, name: 'told', root: ROOT };
    const begun = quantizeModel(input, output, { nbits: 4, queue });
    await until(() => fs.readdirSync(dirname(output)).includes('out.queue'));
    await until(() =>
      fs.readdirSync(`${output}.queue`).some((run) => fs.existsSync(join(`${output}.queue`, run, 'manifest.json'))),
    );
    const followed = quantizeModel(input, output, { queue: { ...queue, attach: true } });
    await work('told');
    expect(await followed).toEqual(await begun);
    expect(beside(output)).toEqual(['out']);
  });

  it('one that has an error of its own ends nothing', async () => {
    const output = freshPath();
    const queue = { url: redis.url, name: 'own', root: ROOT };
    const begun = quantizeModel(input, output, { nbits: 4, queue });
    const broken = () => {
      throw new Error('no terminal');
    };
    await until(() => fs.readdirSync(dirname(output)).includes('out.queue'));
    await until(() =>
      fs.readdirSync(`${output}.queue`).some((run) => fs.existsSync(join(`${output}.queue`, run, 'manifest.json'))),
    );
    const followed = failure(() =>
      quantizeModel(input, output, { queue: { ...queue, attach: true }, onProgress: broken }),
    );
    expect((await followed).message).toBe('no terminal');
    await work('own');
    expect((await begun).totals.weights).toBe(3 * 64 * 64);
  });

  it('one that ends it takes the files of no other', async () => {
    const output = freshPath();
    const other = join(`${output}.queue`, 'f'.repeat(16), 'manifest.json');
    const ending = new AbortController();
    const onProgress = () => {
      fs.mkdirSync(dirname(other), { recursive: true });
      fs.writeFileSync(other, 'of a run that has begun since');
      ending.abort(new Error('ended'));
    };
    const queue = { url: redis.url, name: 'files', root: ROOT };
    const ended = failure(() => quantizeModel(input, output, { nbits: 4, queue, signal: ending.signal, onProgress }));
    expect((await ended).message).toBe('ended');
    expect(fs.readdirSync(`${output}.queue`)).toEqual(['f'.repeat(16)]);
    expect(fs.readFileSync(other, 'utf8')).toBe('of a run that has begun since');
  });

  it('a worker whose shared folder is not there leaves the shards to others', async () => {
    const output = freshPath();
    const empty = fs.mkdtempSync(join(ROOT, 'empty-'));
    const events = await work('away', empty);
    const begun = quantizeModel(input, output, { nbits: 4, queue: { url: redis.url, name: 'away', root: ROOT } });
    await until(() => events.some(({ kind }) => kind === 'failed'));
    expect(events).toContainEqual(
      expect.objectContaining({
        message: expect.stringMatching(/this worker finds none. Look whether the shared folder/),
      }),
    );
    await work('away');
    expect((await begun).totals.weights).toBe(3 * 64 * 64);
  });
});
