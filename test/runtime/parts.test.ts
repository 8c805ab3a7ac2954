import { describe, expect, test } from 'vitest';
import { frequencies, Rope } from '../../lib/runtime/blocks/rope.js';
import { readModelConfig } from '../../lib/runtime/config/model-config.js';
import { naturalContext } from '../../lib/runtime/load.js';
import { Drawer } from '../../lib/runtime/text/draw.js';
import { greatest, randomNumbers, Sampler } from '../../lib/runtime/text/sampling.js';
import { StopWatch } from '../../lib/runtime/text/stop.js';
import { TextStream } from '../../lib/runtime/text/text-stream.js';
import { openTokenizer } from '../../lib/runtime/text/tokenizer.js';
import { SHIPPED } from '../support/language-models.js';

const LLAMA = {
  architectures: ['LlamaForCausalLM'],
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  vocab_size: 100,
  max_position_embeddings: 512,
};

test.each([
  [{}, 512],
  [{ rope_scaling: { type: 'linear', factor: 2.5 } }, 1280],
  [{ rope_scaling: { type: 'yarn', factor: 4 } }, 2048],
  [{ rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 128 } }, 512],
  [{ rope_scaling: { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 } }, 512],
])('the context that %j is good for', (change, want) => {
  expect(naturalContext(readModelConfig({ ...LLAMA, ...change }))).toBe(want);
});

describe('rotary embedding', () => {
  const plain = (headDim: number, theta = 10000) =>
    Array.from({ length: headDim / 2 }, (_, i) => theta ** ((-2 * i) / headDim));
  const read = (scaling: object, more = {}) =>
    readModelConfig({ ...LLAMA, head_dim: 64, rope_scaling: scaling, ...more }).ropes[0]!;
  const expectClose = (got: Float64Array, want: readonly number[]) =>
    got.forEach((value, i) => expect(value / want[i]!).toBeCloseTo(1, 12));

  test('linear and dynamic', () => {
    expectClose(
      frequencies(read({ type: 'linear', factor: 4 }), 9),
      plain(64).map((f) => f / 4),
    );
    const dynamic = read({ type: 'dynamic', factor: 2 });
    expectClose(frequencies(dynamic, 512), plain(64));
    expectClose(frequencies(dynamic, 1024), plain(64, 10000 * 3 ** (64 / 62)));
  });

  test('llama3, as its authors wrote it', () => {
    const config = read(
      {
        rope_type: 'llama3',
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 8192,
      },
      { rope_theta: 500000 },
    );
    const want = plain(64, 500000).map((freq) => {
      const wavelength = (2 * Math.PI) / freq;
      if (wavelength < 8192 / 4) return freq;
      if (wavelength > 8192 / 1) return freq / 8;
      const smooth = (8192 / wavelength - 1) / (4 - 1);
      return ((1 - smooth) * freq) / 8 + smooth * freq;
    });
    expectClose(frequencies(config, 1), want);
    expect(new Set(want.map((f, i) => f / plain(64, 500000)[i]!)).size).toBeGreaterThan(3);
  });

  test('yarn, as its authors wrote it', () => {
    const config = read({ type: 'yarn', factor: 4, original_max_position_embeddings: 2048 });
    const correction = (rotations: number) => (64 * Math.log(2048 / (rotations * 2 * Math.PI))) / (2 * Math.log(10000));
    const [low, high] = [Math.floor(correction(32)), Math.ceil(correction(1))];
    const want = plain(64).map((freq, i) => {
      const mask = 1 - Math.min(1, Math.max(0, (i - low) / (high - low)));
      return (freq / 4) * (1 - mask) + freq * mask;
    });
    expectClose(frequencies(config, 1), want);
    expect(config.scaling).toMatchObject({ attentionFactor: 0.1 * Math.log(4) + 1 });
    expect(new Rope(config).rows(0, 1).cos[0]).toBeCloseTo(0.1 * Math.log(4) + 1, 6);
  });

  test('tables grow and stay the same', () => {
    const rope = new Rope(readModelConfig(LLAMA).ropes[0]!);
    const early = rope.rows(100, 3).cos.slice();
    rope.rows(5000, 1);
    expect(rope.rows(100, 3).cos).toEqual(early);
    expect(rope.rows(5000, 1).sin[0]).toBeCloseTo(Math.sin(5000), 6);
  });
});

describe('sampling', () => {
  const options = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 7 };
  const LOGITS = [0.5, 3, -1, 2.5, 3, -40, 1];

  /** How often each token is drawn, of 20,000. */
  function draw(more: object, logits = LOGITS): number[] {
    const sampler = new Sampler({ ...options, ...more }, []);
    const counts = logits.map(() => 0);
    for (let i = 0; i < 20_000; i++) counts[sampler.next(Float32Array.from(logits))]!++;
    return counts;
  }

  /** The shares that `kept` tokens should have. */
  function shares(kept: readonly number[], temperature = 1): number[] {
    const weights = LOGITS.map((logit, i) => (kept.includes(i) ? Math.exp(logit / temperature) : 0));
    const total = weights.reduce((a, b) => a + b);
    return weights.map((weight) => weight / total);
  }

  test.each([
    [{}, [0, 1, 2, 3, 4, 6], 1],
    [{ temperature: 2 }, [0, 1, 2, 3, 4, 5, 6], 2],
    [{ topK: 1 }, [1], 1],
    [{ topK: 3 }, [1, 3, 4], 1],
    [{ topP: 0.01 }, [1], 1],
    [{ topP: 0.7 }, [1, 4], 1],
    [{ topP: 0.9, topK: 3 }, [1, 3, 4], 1],
    [{ minP: 0.5 }, [1, 3, 4], 1],
  ])('%j', (more, kept, temperature) => {
    const want = shares(kept, temperature);
    draw(more).forEach((count, i) => {
      expect(Math.abs(count / 20_000 - want[i]!)).toBeLessThan(0.015);
      if (!kept.includes(i)) expect(count).toBe(0);
    });
  });

  test('takes the first of the greatest at temperature 0, and avoids what was', () => {
    const greedy = new Sampler({ ...options, temperature: 0 }, []);
    expect(greedy.next(Float32Array.from(LOGITS))).toBe(1);
    const shy = new Sampler({ ...options, temperature: 0, repetitionPenalty: 2 }, [1]);
    expect([1, 2, 3].map(() => shy.next(Float32Array.from(LOGITS)))).toEqual([4, 3, 1]);
    expect(greatest(Float32Array.of(-3, -1, -2))).toBe(1);
    for (let length = 1; length < 40; length++) {
      for (let at = 0; at < length; at++) {
        const numbers = Float32Array.from({ length }, (_, i) => (i < at ? i - 100 : i === at ? 1 : 2 - (i % 2) - 1));
        expect(greatest(numbers), `${length} numbers`).toBe(numbers.indexOf(Math.max(...numbers)));
      }
    }
  });

  test.each([0, 1])('draws nothing from logits that are not numbers, at temperature %i', (temperature) => {
    const sampler = new Sampler({ ...options, temperature }, []);
    for (const bad of [NaN, Infinity]) {
      const logits = new Float32Array(4).fill(bad);
      expect(() => sampler.next(logits)).toThrow(expect.objectContaining({ code: 'ERR_CHECKPOINT_CONTENT' }));
    }
  });

  test('says so where what a text is kept to leaves no token', () => {
    const sampler = new Sampler({ ...options, temperature: 0 }, []);
    const kept = { accepts: () => false, only: (logits: Float32Array) => logits.fill(-Infinity) };
    const error = { code: 'ERR_INVALID_OPTION', message: expect.stringContaining('next token') as string };
    expect(() => sampler.next(Float32Array.from(LOGITS), kept)).toThrow(expect.objectContaining(error));
  });

  test('is the same for the same seed', () => {
    const ids = (seed: number) => {
      const sampler = new Sampler({ ...options, temperature: 3, seed }, []);
      return Array.from({ length: 50 }, () => sampler.next(Float32Array.from(LOGITS)));
    };
    expect(ids(1)).toEqual(ids(1));
    expect(ids(1)).not.toEqual(ids(2));
    expect(ids(2 ** 40)).not.toEqual(ids(2 ** 41));
    const random = randomNumbers(3);
    const mean = Array.from({ length: 10_000 }, random).reduce((a, b) => a + b) / 10_000;
    expect(mean).toBeCloseTo(0.5, 1);
  });

  test('orders as a sort would', () => {
    const random = randomNumbers(9);
    for (const [temperature, topK, topP, cutoff] of [
      [0.7, 100, 1, -30],
      [1, 0, 1, -30],
      [1.5, 0, 0.9, -30],
      [0.3, 40, 0.5, -30],
      [1, 1, 0.1, -30],
      [2, 0, 1, Math.log(0.05)],
      [1, 3, 0.99, Math.log(1)],
    ] as const) {
      const logits = Float32Array.from(
        { length: 2000 },
        () => Math.round(random() * 80) / 10 + (random() < 0.5 ? 0 : random()),
      );
      const sorted = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b);
      const weight = (id: number) => Math.exp((logits[id]! - logits[sorted[0]!]!) / temperature);
      const sum = (ids: readonly number[]) => ids.reduce((total, id) => total + weight(id), 0);
      const near = sorted.filter((id) => weight(id) >= Math.exp(cutoff)).slice(0, topK || undefined);
      const enough = topP * sum(near);
      let [count, mass] = [0, 0];
      for (; count < near.length && (topP === 1 || mass < enough); count++) mass += weight(near[count]!);
      const drawer = new Drawer({ temperature, topK, topP, cutoff });
      for (let i = 0; i < 200; i++) {
        const at = i === 0 ? 0 : i === 1 ? 1 - 2 ** -32 : random();
        let rest = at * mass;
        const want = near.slice(0, count).find((id) => (rest -= weight(id)) < 0) ?? near[count - 1];
        expect(drawer.draw(logits, logits[sorted[0]!]!, at), `${[temperature, topK, topP, at]}`).toBe(want);
      }
    }
  });
});

describe('stop texts', () => {
  test.each([
    [['END'], ['a E', 'N', 'D b'], 'a '],
    [['END'], ['a E', 'N', 'x'], 'a ENx'],
    [['ab', 'b'], ['xa', 'ab'], 'xa'],
    [[], ['a', 'b'], 'ab'],
    [['\n\n'], ['one\n', '\ntwo'], 'one'],
  ])('%j in %j', (stops, parts, want) => {
    const watch = new StopWatch(stops);
    let text = '';
    for (const part of parts) if (!watch.found) text += watch.push(part);
    expect(text + watch.rest()).toBe(want);
  });
});

describe('text streams', () => {
  test('give characters when their last byte is there, and the same text in the end', async () => {
    const tokenizer = await openTokenizer(SHIPPED);
    const text = ' “Curiouser” — naïve 🐳 said,  twice.\n\nÉnd';
    const ids = await tokenizer.encode(text);
    const read = async (stream: TextStream, some: readonly number[]) => {
      let parts = '';
      for (const id of some) parts += await stream.push(id);
      return parts;
    };
    const stream = new TextStream(tokenizer, []);
    const parts = await read(stream, ids);
    expect(parts + (await stream.end())).toBe(await tokenizer.decode(ids));
    expect(parts).not.toContain('\uFFFD');
    const cut = new TextStream(tokenizer, []);
    const whale = await tokenizer.encode('🐳');
    expect(await read(cut, whale.slice(0, -1))).toBe('');
    expect(await cut.end()).toContain('\uFFFD');
    await tokenizer.close();
  });
});
