import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { quantizeModel } from '../../lib/queue/entry.js';
import { beside, failure, freshPath, modelFolder, randomTensor } from '../support/checkpoints.js';
import { SharedQueue } from '../support/queue.js';
import { hasRedis } from '../support/redis.js';

// Several who follow one run, or work at it, of whom one knows less than the others.

describe.skipIf(!hasRedis())('of those who share a run', () => {
  const shared = new SharedQueue();
  const { redis, root: ROOT } = shared;
  beforeAll(() => redis.start());
  afterEach(() => shared.rest());
  afterAll(() => redis.remove());

  const input = modelFolder([0, 1, 2].map((i) => ({ [`layers.${i}.up.weight`]: randomTensor([64, 64], i + 1) })));

  async function until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  /** Whether a run that writes `output` can be followed. */
  function hasManifest(output: string): boolean {
    const staging = `${output}.queue`;
    if (!fs.existsSync(staging)) return false;
    return fs.readdirSync(staging).some((run) => fs.existsSync(join(staging, run, 'manifest.json')));
  }

  it('all are told how it ended', async () => {
    const output = freshPath();
    const queue = { url: redis.url, name: 'told', root: ROOT };
    const begun = quantizeModel(input, output, { nbits: 4, queue });
    await until(() => hasManifest(output));
    const followed = quantizeModel(input, output, { queue: { ...queue, attach: true } });
    await shared.work({ name: 'told' });
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
    await until(() => hasManifest(output));
    const followed = failure(() =>
      quantizeModel(input, output, { queue: { ...queue, attach: true }, onProgress: broken }),
    );
    expect((await followed).message).toBe('no terminal');
    await shared.work({ name: 'own' });
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
    const events = await shared.work({ name: 'away', root: empty });
    const begun = quantizeModel(input, output, { nbits: 4, queue: { url: redis.url, name: 'away', root: ROOT } });
    await until(() => events.some(({ kind }) => kind === 'failed'));
    expect(events).toContainEqual(
      expect.objectContaining({
        message: expect.stringMatching(/this worker finds none. Look whether the shared folder/),
      }),
    );
    await shared.work({ name: 'away' });
    expect((await begun).totals.weights).toBe(3 * 64 * 64);
  });
});
