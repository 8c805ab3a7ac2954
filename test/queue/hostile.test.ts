import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { beginRun } from '../../lib/queue/begin.js';
import { closeQueue, connectionOf, openQueue } from '../../lib/queue/connection.js';
import { createWorker, quantizeModel } from '../../lib/queue/entry.js';
import { checkJob } from '../../lib/queue/jobs.js';
import type { Manifest } from '../../lib/queue/manifest.js';
import { resolveQueue, resolveWorker, type WorkerEvent } from '../../lib/queue/options.js';
import type { QueueWorker } from '../../lib/queue/worker.js';
import { beside, failure, freshPath, modelFolder, randomTensor, snapshot } from '../support/checkpoints.js';
import { hasRedis, Redis } from '../support/redis.js';

const URL_OF_NOBODY = 'redis://127.0.0.1:1';
const SHA = '0'.repeat(64);
const RUN = '0123456789abcdef';

describe('options of a queue', () => {
  it.each([
    [{ url: 'http://localhost' }, /Expected queue.url to be a URL of Redis, .* got another text/],
    [{ url: 'redis://me:sesame@' }, /got another text/],
    [{ url: 'redis://:sesame%zz@h' }, /write % as %25, or use HQQ_REDIS_PASSWORD/],
    [{ url: 'redis://sesame%:a@h' }, /write % as %25, or use HQQ_REDIS_PASSWORD/],
    [{ url: 'redis://h/sesame' }, /nothing behind its host but the number of a database/],
    [{ url: 'redis://h/2/3' }, /nothing behind its host but the number of a database/],
    [{ url: 'redis://h?password=sesame' }, /without a query or a fragment/],
    [{ url: 'redis://h#sesame' }, /without a query or a fragment/],
    [{ url: URL_OF_NOBODY, name: 'a:b' }, /Expected the name of the queue to be 1 to 64 letters/],
    [{ url: URL_OF_NOBODY, attempts: 0 }, /Expected queue.attempts to be an integer in \[1, 100\], got 0/],
    [{ url: URL_OF_NOBODY, attach: 1 }, /Expected queue.attach to be true or false, got 1/],
    [{ url: URL_OF_NOBODY, root: '' }, /Expected queue.root to be the path of a folder/],
    [{ url: URL_OF_NOBODY, leave: 3 }, /Expected signal to be an AbortSignal/],
    [{ url: URL_OF_NOBODY, roots: 'a' }, /Unknown option "roots"/],
    [7, /Expected queue to be a URL of Redis, or an object, got 7/],
  ])('%j', (given, message) => {
    const refused = () => resolveQueue(given as Parameters<typeof resolveQueue>[0]);
    expect(refused).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
    expect(refused).toThrow(message);
    expect(refused).not.toThrow(/sesame/);
  });

  it.each([
    [{}, /Expected url to be/],
    [{ url: URL_OF_NOBODY }, /Expected root to be the path of a folder, got undefined/],
    [{ url: URL_OF_NOBODY, root: '.', concurrency: 65 }, /Expected concurrency to be an integer in \[1, 64\]/],
    [{ url: URL_OF_NOBODY, root: '.', threads: 0 }, /Expected threads/],
    [{ url: URL_OF_NOBODY, root: '.', lostAfter: 0.5 }, /Expected lostAfter/],
    [{ url: URL_OF_NOBODY, root: '.', onEvent: 1 }, /Expected onEvent to be a function/],
  ])('of a worker: %j', (given, message) => {
    expect(() => resolveWorker(given as Parameters<typeof resolveWorker>[0])).toThrow(message);
  });
});

it.each([
  ['redis://h', { host: 'h', port: 6379, db: 0 }],
  ['redis://h:7/', { host: 'h', port: 7, db: 0 }],
  ['redis://me:100%25@h/2', { username: 'me', password: '100%', db: 2 }],
  ['rediss://h', { tls: { servername: 'h' } }],
  ['rediss://10.0.0.1', { host: '10.0.0.1', tls: {} }], // TLS has no names for addresses
  ['rediss://[::1]:7', { host: '::1', tls: {} }],
])('%s is reached so', (url, options) => {
  expect(connectionOf(resolveQueue(url).url)).toMatchObject(options);
  if ('tls' in options) expect(connectionOf(url).tls).toEqual(options.tls);
});

describe('data of a job', () => {
  const data = { version: 1, run: RUN, manifest: 'out.queue/a/manifest.json', sha256: SHA };
  it.each([
    ['shard-0', null, 'data'],
    ['shard-0', 'text', 'data'],
    ['shard-0', { ...data, version: 2 }, 'version'],
    ['shard-0', { ...data, run: '../../etc' }, 'run'],
    ['shard-0', { ...data, manifest: ['a'] }, 'manifest'],
    ['shard-0', { ...data, sha256: 'short' }, 'sha256'],
    ['shard--1', data, 'name'],
    ['shard-1e9', data, 'name'],
    ['__proto__', data, 'name'],
    ['finish ', data, 'name'],
  ])('%s %j is refused', (name, given, what) => {
    expect(() => checkJob(name, given)).toThrow(new RegExp(`^Expected a job of hqq's, got .* as its ${what}`));
  });

  it('is what it names and nothing else', () => {
    expect(checkJob('shard-12', { ...data, more: 1 })).toEqual({ task: { kind: 'shard', index: 12 }, data });
  });
});

it('a Redis that is not there is told of, without what its URL holds', async () => {
  const input = modelFolder([{ 'layers.0.up.weight': randomTensor([64, 64], 1) }]);
  const output = freshPath();
  const queue = { url: 'redis://me:sesame@127.0.0.1:1' };
  const { code, message, stack, cause } = await failure(() => quantizeModel(input, output, { queue }));
  expect(code).toBe('ERR_IO');
  expect(message).toMatch(/^Cannot reach Redis at redis:\/\/127\.0\.0\.1:1\. Check that redis-server runs there/);
  expect(`${stack} ${cause}`).not.toMatch(/sesame/);
  expect(beside(output)).toEqual([]);
});

it('what a queue cannot do is refused before anything is made', async () => {
  const input = modelFolder([{ 'layers.0.up.weight': randomTensor([64, 64], 1) }]);
  const output = freshPath();
  const root = freshPath();
  fs.mkdirSync(root);
  const queue = resolveQueue({ url: URL_OF_NOBODY });
  const begin = (options: object, more = queue) => failure(() => beginRun(input, output, options, more, undefined!));
  expect((await begin({ refine: true, nbits: 2 })).message).toMatch(/^Expected no queue with error feedback/);
  expect((await begin({}, { ...queue, root })).message).toMatch(/to lie in the shared folder, .*--queue-root/);
  expect(beside(output)).toEqual([]);
});

describe.skipIf(!hasRedis())('a worker', () => {
  const redis = new Redis('sesame');
  const workers: QueueWorker[] = [];
  beforeAll(async () => {
    await redis.start();
    process.env.HQQ_REDIS_PASSWORD = 'sesame';
  });
  afterEach(async () => {
    await Promise.all(workers.splice(0).map((worker) => worker.close()));
  });
  afterAll(async () => {
    delete process.env.HQQ_REDIS_PASSWORD;
    await redis.remove();
  });

  it('needs the password of its Redis, in the URL or the environment, and tells nobody', async () => {
    const root = dirname(freshPath());
    process.env.HQQ_REDIS_PASSWORD = 'sesame street';
    const { message, stack } = await failure(() => createWorker({ url: redis.url, root }));
    expect(message).toMatch(/It wants another user or password: HQQ_REDIS_USERNAME, HQQ_REDIS_PASSWORD/);
    expect(`${message} ${stack}`).not.toMatch(/sesame/);
    workers.push(await createWorker({ url: redis.url.replace('//', '//:sesame@'), root }));
    process.env.HQQ_REDIS_PASSWORD = 'sesame';
  });

  /** A root with a model in it, and one run of it that has begun. */
  async function begun(change: (manifest: Manifest, root: string) => object = () => ({})) {
    const root = fs.realpathSync(dirname(freshPath()));
    const input = join(root, 'model');
    fs.renameSync(modelFolder([{ 'layers.0.up.weight': randomTensor([64, 64], 1) }]), input);
    const queue = resolveQueue({ url: redis.url, name: 'hostile', root, attempts: 1 });
    const opened = await openQueue(queue.url, queue.name);
    const run = await beginRun(input, join(root, 'out'), { nbits: 4 }, queue, opened);
    const manifest = join(run.folder, 'manifest.json');
    const text = JSON.stringify({ ...run.manifest, ...change(run.manifest, root) });
    fs.writeFileSync(manifest, text);
    const sha256 = createHash('sha256').update(text).digest('hex');
    await opened.obliterate({ force: true });
    await closeQueue(opened);
    return { root, run, data: { ...run.data, sha256 } };
  }

  /** What a job fails of. */
  async function fail(root: string, name: string, data: unknown, attempts = 1000): Promise<string> {
    const queue = new Queue('hostile', { connection: { url: redis.url, password: 'sesame' } });
    let tell = (_: string) => {};
    const failed = new Promise<string>((resolve) => {
      tell = resolve;
    });
    const onEvent = ({ kind, message }: WorkerEvent) => kind === 'failed' && tell(message!);
    const worker = await createWorker({ url: redis.url, name: 'hostile', root, onEvent });
    const job = await queue.add(name, data, { attempts });
    const message = await failed;
    // Once, though the job asks for a thousand times.
    while ((await queue.getJobState(job.id!)) !== 'failed') await sleep(20);
    expect((await queue.getJob(job.id!))?.attemptsMade).toBe(1);
    await worker.close();
    await queue.close();
    return message;
  }

  it('touches nothing outside of its root, whatever a job says', async () => {
    const { root, run, data } = await begun();
    const before = snapshot(root);
    const outside = freshPath('out.queue');
    fs.cpSync(run.folder, join(outside, run.manifest.run), { recursive: true });
    fs.symlinkSync(outside, join(root, 'link.queue'));
    const refused = /^ERR_INVALID_OPTION .*Expected a job to name a place in .* It is not touched\.$/;
    for (const folder of [outside, '../'.repeat(20) + outside.slice(1), 'link.queue', 'model/../out.queue']) {
      const manifest = `${folder}/${run.manifest.run}/manifest.json`;
      expect(await fail(root, 'shard-0', { ...data, manifest })).toMatch(refused);
    }
    expect(await fail(root, 'shard-0', { ...data, manifest: 'model/config.json' })).toMatch(
      /Expected a job to name the manifest of run/,
    );
    fs.rmSync(join(root, 'link.queue'));
    expect(snapshot(root)).toEqual(before);
    expect(fs.readdirSync(join(outside, run.manifest.run))).not.toContain('ended.json');
  });

  it.each<readonly [string, (manifest: Manifest, root: string) => object, RegExp]>([
    ['an output outside', () => ({ output: '/tmp/out' }), /name a place in/],
    [
      'an output elsewhere inside',
      () => ({ output: 'other' }),
      /Expected the folder of the run to be beside its output/,
    ],
    ['an input outside', () => ({ input: '/etc' }), /name a place in/],
    ['another version', () => ({ version: 2 }), /expected version to be 1/],
    ['another hqq', () => ({ hqq: '9.9.9' }), /Expected hqq to be as where the run was begun to be 9\.9\.9/],
    ['a key too many', () => ({ more: 1 }), /expected its keys to be version/],
    [
      'a file of a plan',
      () => ({ options: { plan: '/etc/passwd' } }),
      /Expected a manifest without plan that names a file/,
    ],
    [
      'a file of statistics',
      () => ({ options: { importance: '/etc/passwd' } }),
      /without importance that names a file/,
    ],
    [
      'a text of a file',
      () => ({ options: { importance: 'text:/etc/passwd' } }),
      /without importance that names a file/,
    ],
    [
      'other options',
      ({ options }) => ({ options: { ...options, nbits: 2 } }),
      /Expected the plan of .* to be the run's/,
    ],
    ['another model', () => ({ digest: SHA }), /Expected the digest of .* as this worker sees it to be/],
    ['a list', () => ({ shards: 'many' }), /expected shards to be a list/],
  ])('takes no manifest with %s', async (_, change, message) => {
    const { root, run, data } = await begun(change);
    expect(await fail(root, 'shard-0', data, 1)).toMatch(message); // another worker may see another model
    expect(fs.readdirSync(join(run.folder, 'shards'))).toEqual([]);
    expect(fs.existsSync(join(root, 'out'))).toBe(false);
  });

  it('takes no manifest that is another than the job was made with, and no shard that there is not', async () => {
    const { root, data } = await begun();
    expect(await fail(root, 'shard-0', { ...data, sha256: SHA })).toMatch(/is another: its SHA-256 is/);
    expect(await fail(root, 'shard-7', data)).toMatch(/Expected one of the 1 shards of the run, got shard 7/);
  });

  it('carries nothing along that a link of the model leads to outside', async () => {
    const { root, data } = await begun();
    const secret = freshPath('secret');
    fs.writeFileSync(secret, 'secret');
    fs.symlinkSync(secret, join(root, 'model', 'tokenizer.json'));
    expect(await fail(root, 'shard-0', data)).toMatch(
      /tokenizer\.json to lie in .*, but it is a link to somewhere else/,
    );
  });
});
