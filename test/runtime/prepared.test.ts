import { afterEach, describe, expect, test, vi } from 'vitest';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { QuantizedLinear } from '../../lib/compute/linear.js';
import { quantizeSync } from '../../lib/compute/quantize.js';
import { Plan } from '../../lib/runtime/blocks/plan.js';

const BACKENDS = availableBackends();

describe.each(BACKENDS)('%s: prepared sequences', (name) => {
  const backend = openBackend(name);
  const adding = (x: Float32Array, to: Float32Array) => ({ operation: 'add', args: { x, to, threads: 1 } }) as const;
  const [one, ten] = [Float32Array.of(1), Float32Array.of(10)];

  test('run as often as one likes, alone and among other steps, now and later', async () => {
    const to = new Float32Array(1);
    const sequences = backend.prepare({
      sequences: [{ steps: [adding(one, to)] }, { steps: [adding(ten, to), adding(one, to)] }],
    });
    backend.run('prepared', { sequences, index: 1 });
    expect([...to]).toEqual([11]);
    const again = { operation: 'prepared', args: { sequences, index: 0 } } as const;
    backend.run('sequence', { steps: [again, adding(ten, to), again] });
    expect([...to]).toEqual([23]);
    await backend.start('sequence', { steps: [again, { operation: 'prepared', args: { sequences, index: 1 } }] })
      .promise;
    expect([...to]).toEqual([35]);
  });

  test('keep their arrays, and are kept by what runs', async () => {
    const seen = new Float32Array(4);
    const make = () => {
      const [x, to] = [new Float32Array(1 << 16).fill(1), new Float32Array(1 << 16)];
      return { to, sequences: backend.prepare({ sequences: [{ steps: [adding(x, to), adding(x, to)] }] }) };
    };
    const runs = Array.from({ length: 4 }, async (_, i) => {
      const { to, sequences } = make();
      await backend.start('prepared', { sequences, index: 0 }).promise;
      seen[i] = to.reduce((sum, v) => sum + v, 0) / to.length;
    });
    const garbage = Array.from({ length: 50 }, () => new Float32Array(1 << 18));
    await Promise.all(runs);
    expect([...seen]).toEqual([2, 2, 2, 2]);
    expect(garbage).toHaveLength(50);
  });

  test('are refused where they come from elsewhere, or are not there', () => {
    const sequences = backend.prepare({ sequences: [{ steps: [adding(one, ten)] }] });
    const elsewhere = name === 'js' ? BACKENDS.find((other) => other !== 'js') : 'js';
    const foreign = elsewhere ? [openBackend(elsewhere).prepare({ sequences: [{ steps: [adding(one, ten)] }] })] : [];
    const children = name === 'js' ? [] : [Object.create(sequences) as object];
    for (const other of [{}, [], { sequences: [] }, ten, ...children, ...foreign]) {
      expect(() => backend.run('prepared', { sequences: other, index: 0 })).toThrow('what prepare made');
    }
    for (const index of [1, -1, 0.5, NaN]) expect(() => backend.run('prepared', { sequences, index })).toThrow();
  });
});

describe.each(BACKENDS.filter((name) => name !== 'js'))('%s: prepared sequences', (name) => {
  const backend = openBackend(name);
  const f = (length: number) => new Float32Array(length);

  test.each([1, 8])(
    'have the bits of one thread on several, which share small products of %i rows between steps',
    (rows) => {
      const weights = (length: number) => Float32Array.from({ length }, (_, i) => Math.sin(i * i));
      const layers = [272, 528, 16].map((outputs) => {
        const q = quantizeSync({ data: weights(outputs * 512), shape: [outputs, 512] }, { nbits: 4 });
        return new QuantizedLinear(q, { activations: 'int8' });
      });
      const x = weights(rows * 512);
      const results = [1, 2, 7].map((threads) => {
        const outs = layers.map(({ outFeatures }) => f(rows * outFeatures));
        const [step] = QuantizedLinear.steps(layers, x, outs, threads);
        const sequences = backend.prepare({ sequences: [{ steps: [step!, step!, step!] }] });
        for (let i = 0; i < 20; i++) backend.run('prepared', { sequences, index: 0 });
        return outs;
      });
      expect(results[0]!.every((out) => out.some((value) => value !== 0))).toBe(true);
      expect(results[1]).toEqual(results[0]);
      expect(results[2]).toEqual(results[0]);
    },
  );

  test('run by another instruction set with its kernels', () => {
    const to = f(1);
    const add = { operation: 'add', args: { x: Float32Array.of(3), to, threads: 1 } } as const;
    const sequences = backend.prepare({ sequences: [{ steps: [add] }] });
    const natives = BACKENDS.filter((other) => other !== 'js');
    for (const other of natives) openBackend(other).run('prepared', { sequences, index: 0 });
    expect([...to]).toEqual([3 * natives.length]);
  });

  test('are refused where their arrays have lost their memory', () => {
    const [x, to] = [f(8), f(8)];
    const step = { operation: 'add', args: { x, to, threads: 1 } } as const;
    const sequences = backend.prepare({ sequences: [{ steps: [step] }] });
    const prepared = { operation: 'prepared', args: { sequences, index: 0 } } as const;
    expect(() => backend.prepare({ sequences: [{ steps: [prepared] }] })).toThrow('not prepared');
    structuredClone(x.buffer, { transfer: [x.buffer] });
    expect(() => backend.run('prepared', prepared.args)).toThrow('stay as they are');
    expect(() => backend.start('sequence', { steps: [prepared] })).toThrow('stay as they are');
    expect([...to]).toEqual([...f(8)]);
  });

  test('are refused where a getter takes the memory of what was read', () => {
    const take = (array: Float32Array<ArrayBuffer>) => structuredClone(array.buffer, { transfer: [array.buffer] });
    const [x, to, late] = [f(8), f(8), f(8)];
    const sequences = backend.prepare({ sequences: [{ steps: [{ operation: 'add', args: { x, to, threads: 1 } }] }] });
    const running = {
      sequences,
      get index() {
        take(to);
        return 0;
      },
    };
    expect(() => backend.run('prepared', running)).toThrow('stay as they are');
    const reading = {
      to: late,
      threads: 1,
      get x() {
        take(late); // whose place was read before
        return x;
      },
    };
    expect(() => backend.prepare({ sequences: [{ steps: [{ operation: 'add', args: reading }] }] })).toThrow(
      'stay as they are',
    );
  });

  test.each([false, true])(
    'are refused where their buffer shrank under one of two views, bytes first: %s',
    (bytesFirst) => {
      const buffer = new (ArrayBuffer as new (length: number, options: object) => ArrayBuffer)(1 << 16, {
        maxByteLength: 1 << 16,
      });
      const length = 1 << 14;
      const views = [new Float32Array(buffer, 0, length), new Uint8Array(buffer, 0, length)] as const;
      const shape = { rows: 128, cols: length / 128, step: 128, format: 0 } as const;
      const steps = [
        { operation: 'add', args: { x: views[0], to: f(length), threads: 1 } },
        { operation: 'unpack', args: { ...shape, packed: views[1], codes: new Uint8Array(length), threads: 1 } },
      ] as const;
      const sequences = backend.prepare({ sequences: [{ steps: bytesFirst ? [steps[1], steps[0]] : steps }] });
      backend.run('prepared', { sequences, index: 0 });
      (buffer as unknown as { resize(length: number): void }).resize(length);
      expect(() => backend.run('prepared', { sequences, index: 0 })).toThrow('stay as they are');
    },
  );

  test('are refused where one of many buffers is taken, whichever it is', () => {
    const pair = () => {
      const shared = new Float32Array(64); // two arrays of one buffer, as weights of small models are
      return { x: shared.subarray(0, 8), to: shared.subarray(16, 24) };
    };
    for (let taken = 0; taken < 5; taken++) {
      const pairs = Array.from({ length: 5 }, pair);
      const steps = pairs.flatMap(({ x, to }) => [
        { operation: 'add', args: { x: to, to: x, threads: 1 } } as const,
        { operation: 'add', args: { x, to, threads: 1 } } as const,
      ]);
      const sequences = backend.prepare({ sequences: [{ steps }] });
      backend.run('prepared', { sequences, index: 0 });
      const { buffer } = pairs[taken]!.x;
      structuredClone(buffer, { transfer: [buffer] });
      expect(() => backend.run('prepared', { sequences, index: 0 })).toThrow('stay as they are');
    }
  });

  test.each([false, true])('are refused where the array that ends last is lost, first read: %s', (lastFirst) => {
    const most = { maxByteLength: 256 };
    const buffer = new (ArrayBuffer as new (length: number, options: object) => ArrayBuffer)(256, most);
    const steps = [
      { operation: 'add', args: { x: new Float32Array(buffer, 128, 8), to: f(8), threads: 1 } }, // bytes [128, 160)
      { operation: 'add', args: { x: new Float32Array(buffer, 0, 48), to: f(48), threads: 1 } }, // bytes [0, 192)
    ] as const;
    const sequences = backend.prepare({ sequences: [{ steps: lastFirst ? [steps[1], steps[0]] : steps }] });
    const resize = (length: number) => (buffer as unknown as { resize(length: number): void }).resize(length);
    resize(192); // nobody needs the rest
    backend.run('prepared', { sequences, index: 0 });
    resize(160);
    expect(() => backend.run('prepared', { sequences, index: 0 })).toThrow('stay as they are');
  });
});

describe.each(BACKENDS)('%s: a plan of many steps that runs again and again', (name) => {
  const [count, x] = [130, Float32Array.of(1)];

  function planOf() {
    const to = new Float32Array(1);
    const plan = new Plan(1);
    for (let i = 0; i < count; i++) plan.add(1, (threads) => [{ operation: 'add', args: { x, to, threads } }]);
    const backend = openBackend(name);
    const [start, prepare] = [vi.spyOn(backend, 'start'), vi.spyOn(backend, 'prepare')];
    return { to, plan: plan.prepare(backend), start, prepare };
  }

  afterEach(() => vi.restoreAllMocks());

  test('reads its arguments in pieces, each at work while the next is read, and is one job from then on', async () => {
    const { to, plan, start, prepare } = planOf();
    expect(prepare).not.toHaveBeenCalled(); // nor is the event loop held up by it
    await plan.run({});
    expect([to[0], prepare.mock.calls.length, start.mock.calls.length]).toEqual([count, 3, 3]);
    const at = [...prepare.mock.invocationCallOrder, ...start.mock.invocationCallOrder];
    const order = at.map((call, i) => ({ call, what: i < 3 ? 'read' : 'begun' })).sort((a, b) => a.call - b.call);
    expect(order.map(({ what }) => what)).toEqual(['read', 'begun', 'read', 'begun', 'read', 'begun']);
    for (let i = 0; i < 2; i++) await plan.run({});
    expect([to[0], prepare.mock.calls.length, start.mock.calls.length]).toEqual([3 * count, 3, 5]);
  });

  test('goes on after a run that ended early', async () => {
    const { to, plan, prepare } = planOf();
    const controller = new AbortController();
    prepare.mockImplementationOnce(() => {
      throw Object.assign(new Error('no room'), { code: 'ERR_OUT_OF_MEMORY' });
    });
    await expect(plan.run({})).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    controller.abort(new Error('enough'));
    await expect(plan.run({ signal: controller.signal })).rejects.toThrow('enough');
    expect(to[0]).toBe(0);
    for (let i = 1; i < 3; i++) {
      await plan.run({});
      expect(to[0]).toBe(i * count);
    }
  });
});
