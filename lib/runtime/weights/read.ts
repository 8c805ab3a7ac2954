import { QuantizedLinear } from '../../compute/linear.js';
import type { RunOptions } from '../../matrix/weight.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quoteSome } from '../../messages/text.js';
import type { Model } from '../../models/model.js';
import { Block } from '../blocks/block.js';
import { Head } from '../blocks/head.js';
import { CodedLinear, DenseLinear, type Linear } from '../blocks/linear.js';
import { RmsNorm } from '../blocks/norm.js';
import type { LanguageModelConfig } from '../config/model-config.js';

/** Everything that a language model computes with. */
export interface ModelWeights {
  /** `[vocabSize, hiddenSize]` */
  readonly embedding: Float32Array;
  readonly blocks: readonly Block[];
  readonly head: Head;
}

/** How weights are read, and what quantized layers compute with. */
interface ReadOptions extends RunOptions {
  readonly activations: 'float32' | 'int8';
}

/** What some files hold beside the weights: computed from the config here. */
const IGNORED = /(^|\.)rotary_emb\.inv_freq$/;

/**
 * Reads the weights of a model. Every tensor must have the shape that the config gives it, and every tensor must be known: one
 * that is not belongs to a feature that would be left out.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT`
 */
export async function readWeights(model: Model, config: LanguageModelConfig, run: ReadOptions): Promise<ModelWeights> {
  const reader = new Reader(model, run);
  const { hiddenSize, vocabSize, normEpsilon } = config;
  const embedding = await reader.tensor('model.embed_tokens.weight', [vocabSize, hiddenSize]);
  const blocks: Block[] = [];
  for (let layer = 0; layer < config.layers; layer++) blocks.push(await readBlock(reader, config, layer));
  const norm = new RmsNorm(await reader.tensor('model.norm.weight', [hiddenSize]), normEpsilon);
  if (config.tied) reader.ignore('lm_head.weight');
  const head = config.tied
    ? new DenseLinear(embedding, [vocabSize, hiddenSize])
    : await reader.linear('lm_head', [vocabSize, hiddenSize], false);
  reader.finish();
  return { embedding, blocks, head: new Head(norm, head) };
}

async function readBlock(reader: Reader, config: LanguageModelConfig, layer: number): Promise<Block> {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim, qkvBias, outputBias, mlpBias, normEpsilon } = config;
  const at = `model.layers.${layer}`;
  const attention = (name: string, out: number) =>
    reader.linear(`${at}.self_attn.${name}_proj`, [out, hiddenSize], qkvBias);
  const linears = {
    q: await attention('q', heads * headDim),
    k: await attention('k', kvHeads * headDim),
    v: await attention('v', kvHeads * headDim),
    o: await reader.linear(`${at}.self_attn.o_proj`, [hiddenSize, heads * headDim], outputBias),
    gate: await reader.linear(`${at}.mlp.gate_proj`, [intermediateSize, hiddenSize], mlpBias),
    up: await reader.linear(`${at}.mlp.up_proj`, [intermediateSize, hiddenSize], mlpBias),
    down: await reader.linear(`${at}.mlp.down_proj`, [hiddenSize, intermediateSize], mlpBias),
  };
  const norm = async (name: string) =>
    new RmsNorm(await reader.tensor(`${at}.${name}.weight`, [hiddenSize]), normEpsilon);
  return new Block(config, layer, {
    linears,
    attentionNorm: await norm('input_layernorm'),
    mlpNorm: await norm('post_attention_layernorm'),
  });
}

/** Reads tensors by name, and knows in the end which were left. */
class Reader {
  readonly #model: Model;
  readonly #run: ReadOptions;
  readonly #left: Set<string>;
  readonly #coded: ReadonlySet<string>;

  constructor(model: Model, run: ReadOptions) {
    this.#model = model;
    this.#run = run;
    this.#coded = new Set(model.tensors.flatMap(({ name, quantized }) => (quantized ? [name] : [])));
    this.#left = new Set(model.names.filter((name) => !IGNORED.test(name)));
  }

  async tensor(name: string, shape: readonly number[]): Promise<Float32Array> {
    this.#take(name, shape);
    const { signal, threads } = this.#run;
    return this.#model.load(name, { signal, threads });
  }

  async linear(module: string, shape: readonly [number, number], hasBias: boolean): Promise<Linear> {
    const name = `${module}.weight`;
    const bias = hasBias ? await this.tensor(`${module}.bias`, [shape[0]]) : undefined;
    if (!this.#coded.has(name)) return new DenseLinear(await this.tensor(name, shape), shape, bias);
    this.#take(name, shape);
    const { activations, signal, threads } = this.#run;
    const q = await this.#model.loadQuantized(name, { signal, threads });
    return new CodedLinear(await QuantizedLinear.create(q, { bias, activations, signal, threads }));
  }

  ignore(name: string): void {
    this.#left.delete(name);
  }

  finish(): void {
    if (this.#left.size === 0) return;
    const message = `${this.#where()} holds tensors that the architecture of its config.json does not have`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}: ${quoteSome([...this.#left])}.`);
  }

  #take(name: string, expected: readonly number[]): void {
    if (!this.#left.delete(name))
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${this.#where()} has no tensor ${name}.`);
    const got = this.#model.shape(name);
    if (got.length === expected.length && got.every((size, i) => size === expected[i])) return;
    const message = `Expected ${name} to be ${expected.join(' x ')} after config.json, got ${got.join(' x ')}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${this.#where()}: ${message}.`);
  }

  #where(): string {
    return plain(this.#model.path);
  }
}
