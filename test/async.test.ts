import { describe, expect, it } from 'vitest';
import type { Operations } from '../binding.js';
import { activeBackend, availableBackends, openBackend } from '../lib/backend/index.js';
import { groupedQuantizeArgs } from '../lib/compute/arguments.js';
import { dequantize, quantize, quantizeSync } from '../lib/compute/quantize.js';
import { runTask } from '../lib/compute/run.js';
import { MAX_ITERATIONS } from '../lib/matrix/constants.js';
import { allocateWords, formatFor, packedRows } from '../lib/matrix/format.js';
import { resolveQuantConfig } from '../lib/matrix/options.js';
import type { PlainWeight } from '../lib/matrix/weight.js';
import { SOLVERS, ZERO_KINDS } from '../lib/solvers/solvers.js';
import { runFixture } from './child.js';
import { racesOf, shareOf } from './support/share.js';
import { countTurns } from './support/turns.js';

const isa = availableBackends()[0]!;
const fast = activeBackend().name === 'native';

function weightOf(rows: number, cols: number): PlainWeight {
  const data = new Float32Array(rows * cols);
  const first = data.subarray(0, 1 << 16);
  for (let i = 0; i < first.length; i++) first[i] = Math.sin(i * 1.7) * 0.05;
  for (let at = first.length; at < data.length; at += first.length) data.set(first.subarray(0, data.length - at), at);
  return { data, dtype: 'float32', shape: [rows, cols] };
}

/** Takes well over 50 ms on any machine; a quarter does where each weight takes long. */
const side = fast && shareOf(2) === 2 ? 4096 : fast ? 2048 : 1024;
const large = weightOf(side, side);
const small = weightOf(128, 64);

describe('quantize', () => {
  it('does not block the event loop', async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await quantize(large, {}, { threads: 1 });
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(5);
  });

  it('gives what its blocking twin gives, however many run at once', async () => {
    const expected = quantizeSync(small);
    const results = await Promise.all(Array.from({ length: 200 }, () => quantize(small)));
    expect(results[0]).toEqual(expected);
    for (const q of results) expect(Buffer.from(q.packed).equals(expected.packed as Uint8Array)).toBe(true);
  });

  it('gives frozen results', async () => {
    const q = await quantize(small);
    expect(Object.isFrozen(q) && Object.isFrozen(q.stats) && Object.isFrozen(q.shape)).toBe(true);
  });

  it('reads memory that is shared', async () => {
    const data = new Float32Array(new SharedArrayBuffer(small.data.byteLength));
    data.set(small.data);
    expect(await quantize({ ...small, data })).toEqual(quantizeSync(small));
  });

  it('refuses memory that may go away, and memory that has gone', async () => {
    const bytes = small.data.byteLength;
    const Resizable = ArrayBuffer as unknown as new (length: number, options: { maxByteLength: number }) => ArrayBuffer;
    const resizable = new Float32Array(new Resizable(bytes, { maxByteLength: bytes }));
    await expect(quantize({ ...small, data: resizable })).rejects.toThrow(/resizable/);

    const detached = new Float32Array(small.data.length);
    structuredClone(detached, { transfer: [detached.buffer] });
    await expect(quantize({ ...small, data: detached })).rejects.toThrow(/transferred/);
    expect(() => quantizeSync({ ...small, data: detached })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });

  it('keeps its input from being transferred away', async () => {
    const data = large.data.slice();
    const pending = quantize({ ...large, data });
    try {
      structuredClone(data.buffer, { transfer: [data.buffer] }); // Node 20 copies, newer versions throw
    } catch (error) {
      expect(error).toMatchObject({ name: 'DataCloneError' });
    }
    expect(data.length).toBe(large.data.length);
    await pending;
  });
});

describe('abort', () => {
  it('before the call: rejects with the reason, whatever it is', async () => {
    await expect(quantize(small, {}, { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: 'AbortError' });
    await expect(quantize(small, {}, { signal: AbortSignal.abort('enough') })).rejects.toBe('enough');
    expect(() => quantizeSync(small, {}, { signal: AbortSignal.abort('enough') })).toThrow('enough');
  });

  it.each([0, 5])('%i ms into it: rejects soon', async (delay) => {
    const controller = new AbortController();
    const pending = quantize(large, {}, { signal: controller.signal, threads: 1 });
    const outcome = expect(pending).rejects.toMatchObject({ name: 'AbortError' });
    if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
    controller.abort();
    await outcome;
  });

  it('rejects one that waits at once, while another runs', async () => {
    const order: string[] = [];
    const controller = new AbortController();
    const running = quantize(large, {}, { threads: 1 }).then(() => order.push('running'));
    const waiting = quantize(large, {}, { signal: controller.signal }).catch(() => order.push('waiting'));
    controller.abort();
    await Promise.all([running, waiting]);
    expect(order).toEqual(['waiting', 'running']);
  });

  it('after it: changes nothing, and no listener stays behind', async () => {
    const controller = new AbortController();
    let listeners = 0;
    const { signal } = controller;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => (listeners++, add(...args));
    signal.removeEventListener = (...args: Parameters<typeof remove>) => (listeners--, remove(...args));
    const q = await quantize(small, {}, { signal });
    controller.abort();
    expect(listeners).toBe(0);
    expect((await dequantize(q)).length).toBe(small.data.length);
  });

  it('leaves the queue in order for others', async () => {
    const controllers = Array.from({ length: 50 }, () => new AbortController());
    const calls = controllers.map(({ signal }) => quantize(small, {}, { signal }));
    controllers.forEach((controller, i) => i % 2 === 0 && controller.abort());
    const outcomes = await Promise.allSettled(calls);
    outcomes.forEach(({ status }, i) => expect(status === 'fulfilled').toBe(i % 2 === 1));
  });
});

describe('processes and workers that end in the middle', () => {
  it('process.exit does not wait for the work', async () => {
    const { status, stderr } = await runFixture('exit.mjs', ['exit']);
    expect(status, stderr).toBe(7);
  });

  it('an exception that nobody catches ends the process as always', async () => {
    const { status, stderr } = await runFixture('exit.mjs', ['throw']);
    expect(status).toBe(1);
    expect(stderr).toContain('on purpose');
  });

  it('a process stays for its result, and no longer', async () => {
    const { status, stdout, stderr } = await runFixture('exit.mjs', ['end']);
    expect(status, stderr).toBe(0);
    expect(stdout).toContain('quantized ');
  });

  it('arrays that only the operation holds stay', async () => {
    const { status, stdout, stderr } = await runFixture('exit.mjs', ['forget']);
    expect(status, stderr).toBe(0);
    expect(stdout).toContain('same true');
  });

  it.each([
    ['each', 12],
    ['all', 10],
  ])('workers are terminated while they work: %s of %i', async (how, count) => {
    const { status, signal, stdout, stderr } = await runFixture('workers.mjs', [how, String(racesOf(count))]);
    expect({ status, signal }, stderr).toEqual({ status: 0, signal: null });
    expect(stdout).toContain('alive ');
  });
});

describe.runIf(isa !== 'js')('the addon, called with nonsense', () => {
  const backend = openBackend(isa);

  function validArgs(rows = 128, cols = 64): Operations['quantize'] {
    const format = formatFor(4);
    return groupedQuantizeArgs({
      ...{ rows, cols, axis: 1, format, config: resolveQuantConfig({ solver: 'hqq' }), threads: 1 },
      ...{ weights: new Float32Array(rows * cols), dtype: 'float32', metaDtype: 'float32' },
      packed: allocateWords(format, packedRows(format, rows) * cols),
      ...{ scale: new Float32Array(rows), zero: new Float32Array(rows), stats: new Float64Array(5) },
    });
  }

  const importance = (change: object) => ({
    ...{ values: new Float32Array(64), starts: new Int32Array(128), stride: 1 },
    ...change,
  });

  it('takes what is right', async () => {
    backend.run('quantize', validArgs());
    backend.run('quantize', { ...validArgs(), importance: importance({}) });
    await runTask(backend, 'quantize', validArgs());
  });

  it.each<[string, object]>([
    ['rows that are not whole', { rows: 1.5 }],
    ['rows that are no number', { rows: Number.NaN }],
    ['no rows', { rows: 0 }],
    ['rows without end', { rows: 2 ** 53, cols: 2 ** 53 }],
    ['a product past 64 bits', { rows: 2 ** 32 - 1, cols: 2 ** 32 - 1, step: 2 ** 32 - 1 }],
    ['too few packed rows', { step: 1 }],
    ['a format that does not exist', { format: 5 }],
    ['a dtype that does not exist', { dtype: 3 }],
    ['an axis that does not exist', { axis: 2 }],
    ['weights of another type', { weights: new Float64Array(128 * 64) }],
    ['weights that are too short', { weights: new Float32Array(128 * 64 - 1) }],
    ['weights that are a list', { weights: [1, 2, 3] }],
    ['words of another size', { packed: new Int32Array(64 * 64) }],
    ['scales that are too few', { scale: new Float32Array(127) }],
    ['zeros that are missing', { zero: undefined }],
    ['stats that are too short', { stats: new Float64Array(4) }],
    ['a schedule that is odd', { parameters: new Float32Array(4) }],
    ['a block of none', { block: 0 }],
    ['a block that is too large', { block: 17 }],
    ['no threads', { threads: 0 }],
    ['too many threads', { threads: 1025 }],
    ['a flag that is a number', { referenceGuards: 1 }],
    ['a solver that does not exist', { solver: SOLVERS.length }],
    ['parameters of another solver', { solver: SOLVERS.indexOf('minmax') }],
    ['more iterations than there may be', { parameters: new Float32Array(3 + 2 * (MAX_ITERATIONS + 1)) }],
    ['a zero kind that does not exist', { zeroKind: ZERO_KINDS.length }],
    ['an importance that is no object', { importance: 1 }],
    ['importance of no feature', { importance: importance({ values: new Float32Array(0) }) }],
    ['importance of another type', { importance: importance({ values: new Float64Array(64) }) }],
    ['starts that are too few', { importance: importance({ starts: new Int32Array(127) }) }],
    ['a stride of none', { importance: importance({ stride: 0 }) }],
    ['a code that no byte holds', { maxCode: 256 }],
  ])('refuses %s', (_, change) => {
    const args = { ...validArgs(), ...change };
    expect(() => backend.run('quantize', args)).toThrow(/^Expected /);
    expect(() => backend.start('quantize', args)).toThrow(/^Expected /);
  });

  it('refuses arrays that a getter takes away while they are read', () => {
    const args = validArgs();
    const thief = {
      ...args,
      get zero() {
        structuredClone(args.weights.buffer, { transfer: [args.weights.buffer as ArrayBuffer] });
        return args.zero;
      },
    };
    expect(() => backend.run('quantize', thief)).toThrow(TypeError);
  });

  it('refuses an operation that does not exist, and arguments that are none', () => {
    expect(() => backend.run('quantise' as 'quantize', validArgs())).toThrow(
      /quantize, encode, extremes, pack, unpack, packWords, dequantize, distance/,
    );
    expect(() => backend.run('quantize', null as never)).toThrow(TypeError);
  });

  it('cancels with a code, and lets what has settled be', async () => {
    const task = backend.start('quantize', validArgs());
    await task.promise;
    task.cancel();
    const second = backend.start('quantize', validArgs(1 << 17)); // long enough for the third to wait
    const third = backend.start('quantize', validArgs());
    third.cancel();
    third.cancel();
    await expect(third.promise).rejects.toMatchObject({ code: 'ABORTED' });
    await second.promise;
  });
});

describe('JavaScript in the background', () => {
  it('lets the event loop have its turns, also where groups are long', async () => {
    const backend = openBackend('js');
    const [rows, cols] = [512, 2048];
    const config = resolveQuantConfig({ axis: 0, groupSize: null });
    const task = backend.start(
      'quantize',
      groupedQuantizeArgs({
        ...{
          weights: new Float32Array(rows * cols).map((_, i) => Math.sin(i)),
          dtype: 'float32',
          rows,
          cols,
          axis: 0,
          config,
        },
        ...{ format: formatFor(4), metaDtype: 'float32', threads: 1, packed: new Uint8Array((rows * cols) / 2) },
        ...{ scale: new Float32Array(cols), zero: new Float32Array(cols), stats: new Float64Array(5) },
      }),
    );
    const turns = countTurns();
    const started = performance.now();
    await task.promise;
    // A turn every 2 ms or so; the bound leaves room for a machine that is busy.
    expect(turns()).toBeGreaterThan((performance.now() - started) / 40);
  });
});
