import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { Batcher, type BatchReader } from '../../lib/runtime/batch/batcher.js';
import { KvCache } from '../../lib/runtime/blocks/cache.js';
import type { LanguageModelConfig } from '../../lib/runtime/config/model-config.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { SHIPPED } from '../support/language-models.js';
import { logitsOf, openDecoder } from '../support/runs.js';
import { scratchFolder } from '../support/scratch.js';

const work = scratchFolder('batch');

const someIds = (count: number, step: number) => Array.from({ length: count }, (_, i) => (7 + i * step) % 2048);

describe.each([
  ['floats', 'float32'],
  ['4 bits in float32', 'float32'],
  ['4 bits in int8', 'int8'],
] as const)('%s', (name, activations) => {
  test('a text has the same logits alone and among others', async () => {
    const folder = name === 'floats' ? SHIPPED : join(work, activations);
    if (folder !== SHIPPED) await quantizeModel(SHIPPED, folder, { nbits: 4, importance: 'none' });
    const decoder = await openDecoder(folder, activations);
    const { config } = decoder;
    // Prompts of one id, of several pieces, and such as join late; more texts than a batch has room for.
    const texts = [1, 3, 300, 17, 40].map((length, i) => [someIds(length, 31 + i), someIds(12 + i, 57)] as const);
    const alone = [];
    for (const [prompt, tokens] of texts) alone.push(await logitsOf(new Batcher(decoder, 1), config, prompt, tokens));
    const batcher = new Batcher(decoder, 4);
    const together = await Promise.all(
      texts.map(async ([prompt, tokens], i) => {
        await pause(5 * i);
        return logitsOf(batcher, config, prompt, tokens);
      }),
    );
    for (const [i, logits] of together.entries()) expect(logits, `text ${i}`).toEqual(alone[i]);
  });
});

/** A reader that tells what it is asked, and answers when it is told to. */
class Recorder implements BatchReader {
  readonly steps: { rows: number[]; told: number }[] = [];
  #next: (() => void)[] = [];

  prepareTokens(caches: readonly KvCache[]) {
    return {
      run: () =>
        this.#record(
          caches.map(() => 1),
          caches.length,
        ),
    };
  }

  readParts(
    parts: readonly { ids: ArrayLike<number> }[],
    told: number,
    { signal }: { signal?: AbortSignal | undefined },
  ) {
    return this.#record(
      parts.map(({ ids }) => ids.length),
      told,
      signal,
    );
  }

  /** Ends the step that is under way, when there is one. */
  async answer(): Promise<void> {
    while (this.#next.length === 0) await pause(0);
    this.#next.shift()!();
    await pause(0);
  }

  #record(rows: number[], told: number, signal?: AbortSignal) {
    this.steps.push({ rows, told });
    return new Promise<Float32Array<ArrayBuffer>>((resolve, reject) => {
      this.#next.push(() => resolve(new Float32Array(told)));
      signal?.addEventListener('abort', () => (this.#next.pop(), reject(signal.reason as Error)));
    });
  }
}

describe('a batch', () => {
  const config = { layers: 1, kvHeads: 1, headDim: 2, vocabSize: 1, ropes: [] as unknown } as LanguageModelConfig;
  const cache = () => new KvCache(config, 4096);
  const never = undefined;

  test('refuses a prompt of nothing by itself', async () => {
    const recorder = new Recorder();
    const batcher = new Batcher(recorder, 2);
    const [empty, seat] = [batcher.enter().read([], cache(), never), batcher.enter().read([1], cache(), never)];
    await expect(empty).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await recorder.answer();
    expect(await seat).toHaveLength(1);
  });

  test('reads what waits together, in turns where it is more than there is room for', async () => {
    const recorder = new Recorder();
    const batcher = new Batcher(recorder, 2);
    const told: number[] = [];
    const write = async (text: number) => {
      const [seat, own] = [batcher.enter(), cache()];
      for (let i = 0; i < 2; i++) {
        await seat.read([1], own, never);
        told.push(text);
      }
    };
    const texts = [0, 1, 2].map(write);
    for (let i = 0; i < 3; i++) await recorder.answer();
    await Promise.all(texts);
    expect(told).toEqual([0, 1, 0, 2, 1, 2]);
    expect(recorder.steps.map((step) => step.told)).toEqual([2, 2, 2]);
  });

  test('begins a step when all that were told of the last one have asked, and waits a turn at most', async () => {
    const recorder = new Recorder();
    const batcher = new Batcher(recorder, 8);
    const seats = [0, 1, 2].map(() => ({ seat: batcher.enter(), own: cache() }));
    const read = ({ seat, own }: (typeof seats)[number]) => seat.read([1], own, never);
    const first = seats.map(read);
    const all = first.map((reading, i) => reading.then(() => read(seats[i]!)));
    const withinTurn = Promise.all(first).then(async () => {
      for (let i = 0; i < 50; i++) await undefined;
      return recorder.steps.length;
    });
    await recorder.answer();
    expect(await withinTurn).toBe(2);
    await recorder.answer();
    await Promise.all(all);
    const [quick, slow, gone] = seats as [(typeof seats)[number], (typeof seats)[number], (typeof seats)[number]];
    const some = [quick, slow, gone].map(read);
    const next = some[0]!.then(() => read(quick));
    const left = some[2]!.then(() => gone.seat.leave());
    await recorder.answer();
    await Promise.all([...some, left]);
    await recorder.answer(); // without the one that does not ask
    await next;
    expect(recorder.steps.map(({ told }) => told)).toEqual([3, 3, 3, 1]);
  });

  test('reads prompts in pieces while others write, and at once when nobody does', async () => {
    const recorder = new Recorder();
    const batcher = new Batcher(recorder, 8);
    const [writer, reader] = [batcher.enter(), batcher.enter()];
    const [written, prompt] = [cache(), cache()];
    const whole = reader.read(someIds(40, 3), prompt, never);
    const tokens = (async () => {
      for (let i = 0; i < 3; i++) await writer.read([1], written, never);
    })();
    for (let i = 0; i < 3; i++) await recorder.answer();
    await Promise.all([whole, tokens]);
    expect(recorder.steps[0]).toEqual({ rows: [1, 16], told: 1 });
    expect(
      recorder.steps.every(({ rows }) => rows[0] === 1),
      'a token of the writer in each',
    ).toBe(true);
    expect(prompt.length).toBe(40);
    const long = batcher.enter().read(someIds(600, 3), cache(), never);
    for (let i = 0; i < 3; i++) await recorder.answer();
    await long;
    expect(recorder.steps.slice(-3).map(({ rows }) => rows)).toEqual([[256], [256], [88]]);
  });

  test('lets a text go between steps, and ends a step that nobody waits for', async () => {
    const recorder = new Recorder();
    const batcher = new Batcher(recorder, 8);
    const aborts = [0, 1, 2].map(() => new AbortController());
    const reads = aborts.map(({ signal }) => batcher.enter().read([1, 2], cache(), signal));
    const outcomes = Promise.allSettled(reads);
    while (recorder.steps.length === 0) await pause(0);
    const late = new AbortController();
    const waiting = batcher.enter().read([3], cache(), late.signal);
    await pause(0);
    late.abort(new Error('late'));
    await expect(waiting).rejects.toThrow('late'); // it was not in the step: at once
    aborts[0]!.abort(new Error('first'));
    await recorder.answer();
    expect((await outcomes).map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
    const only = new AbortController();
    const alone = batcher.enter().read([1, 2], cache(), only.signal);
    while (recorder.steps.length === 1) await pause(0);
    only.abort(new Error('enough'));
    await expect(alone).rejects.toThrow('enough'); // nobody has answered
  });

  test('tells all of a step that failed, and goes on', async () => {
    let failing = true;
    const reader: BatchReader = {
      prepareTokens: () => ({
        run: async () => {
          if (failing) throw new Error('of the step');
          return new Float32Array(2);
        },
      }),
      readParts: () => Promise.reject(new Error('no')),
    };
    const batcher = new Batcher(reader, 8);
    const [a, b] = [batcher.enter(), batcher.enter()];
    const caches = [cache(), cache()];
    const both = () => Promise.allSettled([a.read([1], caches[0]!, never), b.read([1], caches[1]!, never)]);
    expect((await both()).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    failing = false;
    expect((await both()).map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
    expect(caches.map(({ length }) => length)).toEqual([1, 1]);
  });
});

test('fifty texts at once, half of them aborted, all end', async () => {
  const model = await loadLanguageModel(SHIPPED, { maxBatch: 8 });
  const ends = await Promise.allSettled(
    Array.from({ length: 50 }, async (_, i) => {
      const controller = new AbortController();
      let count = 0;
      for await (const { id } of model.generate([5, 6, 7 + i], { maxTokens: 12, signal: controller.signal }))
        if (id >= 0 && ++count === 1 + (i % 7) && i % 2 === 0) controller.abort();
      return count;
    }),
  );
  await model.close();
  for (const [i, end] of ends.entries())
    expect(end, `text ${i}`).toMatchObject(i % 2 === 0 ? { status: 'rejected' } : { status: 'fulfilled', value: 12 });
});
