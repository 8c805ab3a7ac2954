// What a queue costs, and what it gives: a checkpoint of many shards by 1, 2 and 4 workers on this machine, the overhead of a job, the
// time to plan 1,000 shards, and on paper what 8, 32 and 128 machines would take against the bandwidth of the storage that they share.
//
//   node bench/queue.mjs [--shards 24] [--rows 4096] [--json]
//
// Starts a redis-server of its own on loopback, and workers as processes of `hqq worker`. With few cores more workers share them: what
// they then gain is that one computes while another reads and writes.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { quantizeModel } from 'hqq';
import { gaussian, table, toBfloat16 } from './measure.mjs';

const flag = (name, fallback) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : Number(process.argv[at + 1]);
};
const json = process.argv.includes('--json');
const SHARDS = flag('shards', 24);
const ROWS = flag('rows', 4096);
const COLUMNS = 1024;
const WORKERS = [1, 2, 4];
/** Of the small shards that tell what a job costs beside its work. */
const SMALL = 200;
const PLANNED = 1000;

const CLI = fileURLToPath(new URL('../dist/cli.mjs', import.meta.url));
const root = mkdtempSync(join(tmpdir(), 'hqq-bench-queue-'));
const children = [];

/** A folder of `count` shards, a matrix in each. */
function writeModel(name, count, rows, columns) {
  const folder = join(root, name);
  mkdirSync(folder);
  const data = toBfloat16(gaussian(rows * columns, 0.02));
  const map = {};
  for (let i = 0; i < count; i++) {
    const digits = (n) => String(n).padStart(5, '0');
    const file = `model-${digits(i + 1)}-of-${digits(count)}.safetensors`;
    const tensor = `layers.${i}.up.weight`;
    map[tensor] = file;
    const entry = { dtype: 'BF16', shape: [rows, columns], data_offsets: [0, data.byteLength] };
    const text = JSON.stringify({ __metadata__: { format: 'pt' }, [tensor]: entry });
    const header = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    writeFileSync(join(folder, file), Buffer.concat([length, header, Buffer.from(data.buffer)]));
  }
  writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: map }));
  writeFileSync(join(folder, 'config.json'), '{"model_type": "bench"}');
  return folder;
}

async function startRedis() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  const flags = ['--port', port, '--bind', '127.0.0.1', '--dir', root, '--save', '', '--appendonly', 'yes'];
  children.push(spawn('redis-server', flags.map(String), { stdio: 'ignore' }));
  await sleep(1000);
  return `redis://127.0.0.1:${port}`;
}

async function startWorkers(url, count) {
  const workers = Array.from({ length: count }, () =>
    spawn(process.execPath, [CLI, 'worker', '--queue', url, '--root', root, '--quiet'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
  );
  children.push(...workers);
  await Promise.all(workers.map(({ stdout }) => once(stdout, 'data')));
  return workers;
}

async function stop(workers) {
  const ended = workers.map((worker) => once(worker, 'exit'));
  for (const worker of workers) worker.kill('SIGTERM');
  await Promise.all(ended);
}

async function seconds(work) {
  const started = performance.now();
  await work();
  return (performance.now() - started) / 1000;
}

let outputs = 0;
const output = () => join(root, `out-${outputs++}`);

/** Times of one machine and of workers, by turns: the best of `rounds`. */
async function compare(url, model, counts, rounds) {
  const options = { nbits: 4 };
  const times = new Map([0, ...counts].map((count) => [count, Infinity]));
  for (let round = 0; round < rounds; round++) {
    for (const count of times.keys()) {
      const workers = await startWorkers(url, count);
      const queue = count === 0 ? undefined : { url, root };
      const to = output();
      const time = await seconds(() => quantizeModel(model, to, { ...options, queue }));
      times.set(count, Math.min(times.get(count), time));
      rmSync(to, { recursive: true });
      await stop(workers);
    }
  }
  return times;
}

/** Time until all jobs are added, when nobody works. */
async function planning(url, model) {
  const leaving = new AbortController();
  const queue = { url, root, name: 'planned', leave: leaving.signal };
  const to = output();
  const time = await seconds(async () => {
    const onProgress = () => leaving.abort(new Error('left'));
    await quantizeModel(model, to, { nbits: 4, queue, onProgress }).catch((error) => {
      if (error.message !== 'left') throw error;
    });
  });
  return time;
}

/**
 * Hours of a checkpoint on machines that compute `perMachine` bytes of input a second, from storage of `bandwidth` bytes a second in all.
 * What is read is the input, what is written four parts of thirteen of it: 4.5 bits and a sixteenth for each of 16.
 */
function onPaper(machines, perMachine, bandwidth, bytes) {
  const moved = bytes * (1 + 4.625 / 16);
  return Math.max(bytes / (machines * perMachine), moved / bandwidth) / 3600;
}

try {
  const url = await startRedis();
  const model = writeModel('model', SHARDS, ROWS, COLUMNS);
  const bytes = SHARDS * ROWS * COLUMNS * 2;
  const times = await compare(url, model, WORKERS, 2);
  const small = writeModel('small', SMALL, 64, 64);
  const smallTimes = await compare(url, small, [1], 2);
  const perJobMs = ((smallTimes.get(1) - smallTimes.get(0)) / SMALL) * 1000;
  const planSeconds = await planning(url, writeModel('planned', PLANNED, 64, 64));
  const perMachine = bytes / times.get(0);
  const paper = [1, 8, 32, 128].map((machines) => ({
    machines,
    hours: Object.fromEntries(
      [1e9, 5e9, 20e9].map((bandwidth) => [`${bandwidth / 1e9} GB/s`, onPaper(machines, perMachine, bandwidth, 700e9)]),
    ),
  }));
  const result = {
    ...{ cores: availableParallelism(), shards: SHARDS, shardBytes: bytes / SHARDS },
    seconds: Object.fromEntries(times),
    shardsPerMinute: Object.fromEntries([...times].map(([count, time]) => [count, (60 * SHARDS) / time])),
    ...{ perJobMs, planSeconds, planned: PLANNED, perMachine, paper },
  };
  if (json) console.log(JSON.stringify(result));
  else {
    const rows = [...times].map(([count, time]) => [
      count === 0 ? 'one machine, no queue' : `${count} worker${count > 1 ? 's' : ''}`,
      time.toFixed(2),
      ((60 * SHARDS) / time).toFixed(0),
    ]);
    console.log(`${SHARDS} shards of ${bytes / SHARDS / 1e6} MB, ${result.cores} cores`);
    console.log(table([['', 's', 'shards/min'], ...rows]));
    console.log(`overhead: ${perJobMs.toFixed(1)} ms a job (${SMALL} shards of 8 kB)`);
    console.log(`planned: ${PLANNED} shards in ${planSeconds.toFixed(2)} s`);
    const bandwidths = Object.keys(paper[0].hours);
    console.log(`on paper, 700 GB, a machine of ${(perMachine / 1e6).toFixed(0)} MB/s of input: hours`);
    console.log(
      table([
        ['machines', ...bandwidths],
        ...paper.map(({ machines, hours }) => [`${machines}`, ...bandwidths.map((key) => hours[key].toFixed(2))]),
      ]),
    );
  }
} finally {
  for (const child of children) child.kill('SIGKILL');
  rmSync(root, { recursive: true, force: true });
}
