import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Job, Queue, Worker } from 'bullmq';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { quantizeModel as quantizeHere } from '../../lib/calibrate/weighing/quantize.js';
import { beginRun } from '../../lib/queue/begin.js';
import { closeQueue, openQueue } from '../../lib/queue/connection.js';
import { Contexts } from '../../lib/queue/context.js';
import { createWorker, quantizeModel } from '../../lib/queue/entry.js';
import { FILES } from '../../lib/queue/manifest.js';
import { resolveQueue, type WorkerEvent } from '../../lib/queue/options.js';
import { finishRun, writeShardOfRun } from '../../lib/queue/work.js';
import { beside, failure, freshPath, llama, modelFolder, randomTensor, snapshot } from '../support/checkpoints.js';
import { hasRedis, Redis } from '../support/redis.js';

const CLI = fileURLToPath(new URL('../../dist/cli.mjs', import.meta.url));
const FULL_DISK = new URL('../fixtures/full-disk.mjs', import.meta.url).href;

describe.skipIf(!hasRedis())('what goes wrong', () => {
  const redis = new Redis();
  const children = new Set<ChildProcess>();
  const ROOT = fs.realpathSync(dirname(dirname(freshPath())));
  beforeAll(() => redis.start());
  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL');
    await redis.remove();
  });

  /** `hqq worker` in a process of its own. */
  function work(...node: string[]): ChildProcess {
    const flags = ['--queue', redis.url, '--root', ROOT, '--lost-after', '3', '--threads', '1'];
    const child = spawn(process.execPath, [...node, CLI, 'worker', ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr!.setEncoding('utf8');
    children.add(child);
    return child;
  }

  async function kill(child: ChildProcess): Promise<void> {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    children.delete(child);
  }

  it('three workers that are killed in turn, and a Redis that is started anew, cost time alone: 40 shards', async () => {
    const seed = Number(process.env.HQQ_TEST_SEED ?? Date.now() % 1e6);
    let state = seed;
    const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
    const input = modelFolder(
      Array.from({ length: 40 }, (_, i) => ({ [`layers.${i}.up.weight`]: randomTensor([128, 512], i) })),
    );
    const options = { nbits: 3, solver: 'joint' } as const;
    const workers = [work(), work(), work()];
    const output = freshPath();
    let stage = 0;
    let faults = Promise.resolve();
    const fault = async (index: number) => {
      await sleep(500 * random());
      if (index === 3) {
        await redis.stop();
        await sleep(300 * random());
        return redis.start();
      }
      await kill(workers[index]!);
      workers[index] = work();
    };
    await quantizeModel(input, output, {
      ...{ ...options, queue: { url: redis.url, root: ROOT } },
      onProgress: ({ weightsDone, weightsTotal }) => {
        // One after the other, spread over the run.
        while (stage < 4 && weightsDone >= ((stage + 1) * weightsTotal) / 8) {
          const index = [0, 1, 3, 2][stage++]!;
          faults = faults.then(() => fault(index));
        }
      },
    }).catch((error: unknown) => {
      throw new Error(`HQQ_TEST_SEED=${seed} repeats the moments.`, { cause: error });
    });
    expect(stage).toBe(4);
    await faults;
    const whole = freshPath();
    await quantizeHere(input, whole, options);
    expect(snapshot(output)).toEqual(snapshot(whole));
    expect(beside(output)).toEqual(['out']);
    for (const child of workers) await kill(child);
  });

  it('a machine without room leaves its shard to another', async () => {
    const input = modelFolder(
      Array.from({ length: 4 }, (_, i) => ({ [`layers.${i}.up.weight`]: randomTensor([128, 128], i) })),
    );
    const full = work('--import', FULL_DISK);
    const said = once(full.stderr!, 'data').then(async function wait([text]): Promise<string> {
      if (/failed: /.test(text)) return text;
      const [more] = await once(full.stderr!, 'data');
      return wait([`${text}${more}`]);
    });
    const output = freshPath();
    const made = quantizeModel(input, output, { nbits: 4, queue: { url: redis.url, root: ROOT, attempts: 20 } });
    expect(await Promise.race([said, made])).toMatch(
      /failed: ERR_IO model-0000\d-of-00004\.safetensors: Cannot write .*The disk is full/,
    );
    const sound = await createWorker({ url: redis.url, root: ROOT });
    await made;
    await kill(full);
    await sound.close();
    const whole = freshPath();
    await quantizeHere(input, whole, { nbits: 4 });
    expect(snapshot(output)).toEqual(snapshot(whole));
    expect(beside(output)).toEqual(['out']);
  });

  it('a job that two machines do at once, and once more, comes to the same', async () => {
    const input = modelFolder([llama('bfloat16'), { 'layers.9.up.weight': randomTensor([64, 64], 3) }]);
    const [whole, output] = [freshPath(), freshPath()];
    const options = { nbits: 4 } as const;
    await quantizeHere(input, whole, options);
    const queue = resolveQueue({ url: redis.url, name: 'nobody', root: ROOT });
    const opened = await openQueue(queue.url, queue.name);
    const { data, folder } = await beginRun(input, output, options, queue, opened);
    await closeQueue(opened);
    const machines = [new Contexts(ROOT), new Contexts(ROOT)];
    const both = (job: Parameters<Contexts['use']>[1]) =>
      Promise.allSettled(machines.map((machine) => machine.use(data, job)));
    const fine = [{ status: 'fulfilled' }, { status: 'fulfilled' }];
    for (const index of [0, 1, 1]) expect(await both((run) => writeShardOfRun(run, index, {}))).toMatchObject(fine);

    // Half-written shards, of who was killed, are not looked at; whoever finds one missing says so.
    fs.writeFileSync(join(folder, FILES.shards, '0.part.0123.partial'), 'half');
    const part = join(folder, FILES.shards, '1.json');
    fs.renameSync(part, `${part}.away`);
    expect((await both((run) => finishRun(run, {}))).map((result) => result.status)).toEqual(['rejected', 'rejected']);
    expect(beside(output)).toEqual(['out.queue']);
    fs.renameSync(`${part}.away`, part);

    // Two in one process cannot write one output at once; one who comes later finds it in its place.
    const finished = await both((run) => finishRun(run, {}));
    expect(finished.map(({ status }) => status)).toContain('fulfilled');
    expect(snapshot(output)).toEqual(snapshot(whole));
    // Killed between the last step and saying so: nothing is written anew.
    fs.rmSync(join(folder, FILES.report));
    const { ino } = fs.statSync(output);
    expect(await both((run) => finishRun(run, {}))).toMatchObject(fine);
    expect(fs.statSync(output).ino).toBe(ino);
    expect(fs.existsSync(join(folder, FILES.report))).toBe(true);
    for (const machine of machines) await machine.close();
  });

  it('a shard that workers are lost over again and again ends the run, with its name', async () => {
    const input = modelFolder([{ 'layers.0.up.weight': randomTensor([64, 64], 3) }]);
    const output = freshPath();
    const name = 'losses';
    const made = failure(() => quantizeModel(input, output, { nbits: 4, queue: { url: redis.url, name } }));
    const [queue, lost] = [
      new Queue(name, { connection: { url: redis.url } }),
      new Worker(name, null, {
        ...{ connection: { url: redis.url }, lockDuration: 200, skipStalledCheck: true },
      }),
    ];
    // Five have been lost already; the sixth takes it, and is not heard of again.
    let job: Job | undefined;
    while ((job = await lost.getNextJob('lost', { block: false })) === undefined) await sleep(20);
    await (await queue.getBackend().client).hset(queue.toKey(job.id!), { stc: 5 });
    await lost.close(true);
    await queue.close();
    const worker = await createWorker({ url: redis.url, name, root: ROOT, lostAfter: 1 });
    expect(await made).toMatchObject({
      code: 'ERR_IO',
      message: expect.stringMatching(/^model\.safetensors: 6 workers were lost over it/),
    });
    await worker.close();
    expect(beside(output)).toEqual([]);
  });

  it('a Redis that has lost its data is told of, and the run goes on with --attach', async () => {
    const forgetful = new Redis();
    await forgetful.start();
    const input = modelFolder([{ 'layers.0.up.weight': randomTensor([64, 64], 3) }]);
    const output = freshPath();
    const queue = { url: forgetful.url, root: ROOT };
    const lost = failure(() => quantizeModel(input, output, { nbits: 4, queue }));
    while (!fs.existsSync(`${output}.queue`)) await sleep(20);
    await sleep(500);
    await forgetful.stop();
    forgetful.forget();
    await forgetful.start();
    expect(await lost).toMatchObject({
      code: 'ERR_IO',
      message: expect.stringMatching(/did not keep its data.*attach/),
    });
    const worker = await createWorker({ url: forgetful.url, root: ROOT });
    await quantizeModel(input, output, { queue: { ...queue, attach: true } });
    await worker.close();
    await forgetful.remove();
    expect(beside(output)).toEqual(['out']);
  });

  it('workers are stopped while Redis is away: one that waits, and one that has a job, at once', async () => {
    const away = new Redis();
    await away.start();
    const input = modelFolder([{ 'layers.0.up.weight': randomTensor([2048, 2048], 3) }]);
    const leave = new AbortController();
    const queue = { url: away.url, root: ROOT, leave: leave.signal };
    const made = failure(() => quantizeModel(input, freshPath(), { nbits: 3, solver: 'joint', queue }));
    let tell = () => {};
    const begun = new Promise<void>((resolve) => {
      tell = resolve;
    });
    const onEvent = ({ kind }: WorkerEvent) => kind === 'begun' && tell();
    const busy = await createWorker({ url: away.url, root: ROOT, onEvent });
    const waiting = await createWorker({ url: away.url, root: ROOT, name: 'nothing' });
    await begun;
    await away.stop();
    await Promise.all([waiting.close(), busy.close({ now: true })]);
    leave.abort(new Error('left'));
    expect(await made).toMatchObject({ message: 'left' });
    await away.remove();
  });
});
