// Where the time of decoding goes, on a Llama of 112 million parameters that is made here: prints one JSON document.
//
// Every second token is decoded as users do it, and timed as a whole. For the others a backend of ours stands before the native
// one, and runs the steps of the same model one by one, on the arrays and in the order of decoding, each with its own time. The
// share of the linears is what they take of a whole token, planning, event loop and all. Shares are of processor time, which other
// programs do not change as they change that of the clock. On Linux the time of the event loop's own thread is told, too.
// DECODE_THREADS: default 1.
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { median, quantile } from './measure.mjs';
import { writeLlama } from './model.mjs';

const threads = Number(process.env.DECODE_THREADS ?? 1);
const CONTEXTS = [128, 1024];
const TOKENS = 24; // of each way, for each figure
const LINEARS = ['linear', 'linearTiled', 'denseLinear'];
const SIZES = { hidden: 768, ffn: 2048, layers: 14, vocabulary: 32000, kv: 256, tied: true };

/** Milliseconds of processor time that this process has had. */
function processor() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

const SCHEDULED = `/proc/self/task/${process.pid}/schedstat`;

/** Milliseconds of processor time that the event loop's thread has had; NaN where the system does not tell. */
function eventLoop() {
  return existsSync(SCHEDULED) ? Number(readFileSync(SCHEDULED, 'utf8').split(' ')[0]) / 1e6 : NaN;
}

/** Milliseconds by operation while a token is taken apart; undefined while it is not. */
let parts;

/** Puts ourselves before the addon. What hqq loads is the same module, as Node keeps one of each file. */
function standBefore() {
  const require = createRequire(import.meta.url);
  const addon = require(require('node-gyp-build').path(fileURLToPath(new URL('..', import.meta.url))));
  const open = addon.open.bind(addon);
  addon.open = (isa) => {
    const real = open(isa);
    const prepare = ({ sequences }) => ({ sequences, real: real.prepare({ sequences }) });
    const start = (operation, args) => {
      if (operation !== 'prepared') return real.start(operation, args);
      const { sequences, real: prepared } = args.sequences;
      if (!parts) return real.start(operation, { sequences: prepared, index: args.index });
      for (const step of sequences[args.index].steps) {
        const began = processor();
        real.run(step.operation, step.args);
        parts[step.operation] = (parts[step.operation] ?? 0) + processor() - began;
      }
      return { promise: Promise.resolve(), cancel() {} };
    };
    return { name: real.name, isa: real.isa, dot: real.dot, run: real.run.bind(real), start, prepare };
  };
}
standBefore();
const { backend, quantizeModel } = await import('hqq');
const { loadLanguageModel } = await import('hqq/runtime');

/** Decodes in a text of `context` tokens. */
async function decode(model, context) {
  const cache = model.createCache();
  await model.forward(
    Array.from({ length: context }, (_, i) => (i * 7919) % SIZES.vocabulary),
    cache,
  );
  const whole = { ms: [], cpuMs: [], loopMs: [] };
  const apart = [];
  for (let i = 0; i < 2 * TOKENS + 2; i++) {
    parts = i % 2 === 1 ? {} : undefined;
    const [began, beganCpu, beganLoop] = [performance.now(), processor(), eventLoop()];
    await model.forward([i], cache);
    const [ms, cpuMs, loopMs] = [performance.now() - began, processor() - beganCpu, eventLoop() - beganLoop];
    if (i < 2) continue; // warming up
    if (parts) apart.push(parts);
    else whole.ms.push(ms), whole.cpuMs.push(cpuMs), whole.loopMs.push(loopMs);
  }
  parts = undefined;
  const share = (of) => of.reduce((sum, ms) => sum + ms, 0) / median(whole.cpuMs);
  const shares = apart.map((token) => share(LINEARS.map((name) => token[name] ?? 0)));
  const operations = Object.fromEntries(
    Object.keys(apart[0]).map((name) => [name, median(apart.map((token) => token[name]))]),
  );
  const spread = { low: quantile(shares, 0.25), high: quantile(shares, 0.75) };
  const medians = Object.fromEntries(Object.entries(whole).map(([name, values]) => [name, median(values)]));
  return { context, ...medians, linears: median(shares), ...spread, operations };
}

const work = mkdtempSync(join(process.env.HQQ_BENCH_DIR ?? tmpdir(), 'hqq-bench-'));
try {
  const [float, coded] = [join(work, 'float'), join(work, 'coded')];
  const { parameters } = writeLlama(float, SIZES);
  await quantizeModel(float, coded, { nbits: 4, importance: 'none' });
  const rows = [];
  for (const [name, folder, activations] of [
    ['float32', float, 'float32'],
    ['4-bit float32', coded, 'float32'],
    ['4-bit int8', coded, 'int8'],
  ]) {
    const model = await loadLanguageModel(folder, { activations, threads, head: 'float32' });
    for (const context of CONTEXTS) rows.push({ name, ...(await decode(model, context)) });
    await model.close();
  }
  console.log(JSON.stringify({ ...backend(), threads, parameters, rows }));
} finally {
  rmSync(work, { recursive: true, force: true });
}
