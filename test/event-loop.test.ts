import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { activeBackend } from '../lib/backend/index.js';
import { runFixture } from './child.js';
import { scratchFolder } from './support/scratch.js';

// What is asynchronous lets the event loop turn. A turn is measured in processor time of its thread (test/fixtures/turns.mjs), so that
// other programs do not count, and the best of some rounds is taken: a machine may be slow for a while, a call that blocks is so each time.

/** Milliseconds that nobody should wait for. */
const LONGEST = 20;
const ROUNDS = 4;

const folder = scratchFolder('event-loop');
const model = join(folder, 'model');
const quantized = join(folder, 'quantized');
const experts = join(folder, 'experts');

/** Writes a Llama in bfloat16 whose tensors are as large as those of a small one of today, and a vocabulary. */
function writeModel(): void {
  const [width, inner, tokens, layers] = [320, 896, 32_000, 4];
  const shapes: [string, readonly number[]][] = [['model.embed_tokens.weight', [tokens, width]]];
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    for (const side of 'qkvo') shapes.push([`${at}.self_attn.${side}_proj.weight`, [width, width]]);
    for (const name of ['gate', 'up']) shapes.push([`${at}.mlp.${name}_proj.weight`, [inner, width]]);
    shapes.push([`${at}.mlp.down_proj.weight`, [width, inner]]);
    for (const norm of ['input', 'post_attention']) shapes.push([`${at}.${norm}_layernorm.weight`, [width]]);
  }
  shapes.push(['model.norm.weight', [width]]);
  const sizes = { hidden_size: width, intermediate_size: inner, vocab_size: tokens, num_hidden_layers: layers };
  const heads = { num_attention_heads: 5, tie_word_embeddings: true, rms_norm_eps: 1e-5 };
  write(model, shapes, { architectures: ['LlamaForCausalLM'], ...heads, ...sizes });
}

/** Writes a mixture of experts: few weights in many tensors, whose names alone are work. */
function writeExperts(): void {
  const [width, layers] = [64, 8];
  const shapes: [string, readonly number[]][] = [];
  for (let i = 0; i < layers; i++) {
    for (let expert = 0; expert < 48; expert++) {
      const at = `model.layers.${i}.mlp.experts.${expert}`;
      for (const name of ['gate', 'up', 'down']) shapes.push([`${at}.${name}_proj.weight`, [width, width]]);
    }
  }
  const sizes = { hidden_size: width, num_hidden_layers: layers, num_experts: 48 };
  write(experts, shapes, { architectures: ['Qwen3MoeForCausalLM'], model_type: 'qwen3_moe', ...sizes });
}

function write(folder: string, shapes: readonly [string, readonly number[]][], config: object): void {
  const bits = new Uint16Array(new Float32Array(1 << 16).map((_, i) => Math.sin(i * 1.7) * 0.05).buffer);
  const pattern = Buffer.from(bits.filter((_, i) => i % 2 === 1).buffer); // the upper halves of float32
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, shape] of shapes) {
    const bytes = 2 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, (offset += bytes)] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  mkdirSync(folder);
  writeFileSync(join(folder, 'model.safetensors'), Buffer.concat([length, json, Buffer.alloc(offset, pattern)]));
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
}

/** The longest turn while a work of turns.mjs is done, in the best of some rounds. */
async function longestTurn(work: string, args: readonly string[], before = () => {}): Promise<number> {
  let best = Infinity;
  for (let round = 0; round < ROUNDS && best >= LONGEST; round++) {
    before();
    const { stdout, stderr, status } = await runFixture('turns.mjs', [work, ...args]);
    expect([status, stderr]).toEqual([0, '']);
    best = Math.min(best, Number(/^longest ([\d.]+)/.exec(stdout)![1]));
  }
  return best;
}

describe.runIf(activeBackend().name === 'native')('no turn of the event loop is long', () => {
  beforeAll(async () => {
    writeModel();
    writeExperts();
    expect((await runFixture('turns.mjs', ['quantize', model, quantized])).stderr).toBe('');
  });

  test.each([
    ['a language model of bfloat16 is loaded', 'language', () => model],
    ['a quantized one is loaded', 'language', () => quantized],
    ['its layers are read, and made, one by one', 'layers', () => quantized],
  ])('while %s', async (_, work, path) => {
    expect(await longestTurn(work, [path()])).toBeLessThan(LONGEST);
  });

  test.each([
    ['a model', () => model],
    ['one of a thousand small layers', () => experts],
  ])('while %s is quantized', async (_, path) => {
    const out = join(folder, 'again');
    const clear = () => rmSync(out, { recursive: true, force: true });
    expect(await longestTurn('quantize', [path(), out], clear)).toBeLessThan(LONGEST);
  });
});
