import { HqqError } from '../../messages/errors.js';
import { plain, quoteSome } from '../../messages/text.js';
import type { Model } from '../../models/model.js';
import { BLOCK_LINEARS, type BlockLinears, blockName } from '../blocks/block.js';
import { HEAD_MODULE } from '../blocks/head.js';
import type { LanguageModelConfig } from '../config/model-config.js';

// What tensors a model has, by its config: their names and shapes.

/** A linear layer. */
export interface LinearSpec {
  /** As checkpoints call it: `model.layers.0.self_attn.q_proj`. */
  readonly module: string;
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  readonly bias: boolean;
}

/** A block. */
export interface BlockSpec {
  readonly linears: { readonly [K in keyof BlockLinears]: LinearSpec };
  /** Names of the weights of the norms, `[hiddenSize]` each. */
  readonly attentionNorm: string;
  readonly mlpNorm: string;
  /** The same of heads, `[headDim]` each, where the architecture has such. */
  readonly headNorms: { readonly queries: string; readonly keys: string } | undefined;
}

/** `[vocabSize, hiddenSize]` */
export const EMBEDDING = 'model.embed_tokens.weight';
/** `[hiddenSize]` */
export const FINAL_NORM = 'model.norm.weight';

/** What some files hold beside the weights: computed from the config here. */
const IGNORED = /(^|\.)rotary_emb\.inv_freq$/;

export function blockSpec(config: LanguageModelConfig, index: number): BlockSpec {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim, qkvBias, outputBias, mlpBias, headNorms } = config;
  const linear = (name: keyof BlockLinears, outs: number, ins: number, bias: boolean): LinearSpec => {
    return { module: `${blockName(index)}.${BLOCK_LINEARS[name].module}`, shape: [outs, ins], bias };
  };
  return {
    linears: {
      q: linear('q', heads * headDim, hiddenSize, qkvBias),
      k: linear('k', kvHeads * headDim, hiddenSize, qkvBias),
      v: linear('v', kvHeads * headDim, hiddenSize, qkvBias),
      o: linear('o', hiddenSize, heads * headDim, outputBias),
      gate: linear('gate', intermediateSize, hiddenSize, mlpBias),
      up: linear('up', intermediateSize, hiddenSize, mlpBias),
      down: linear('down', hiddenSize, intermediateSize, mlpBias),
    },
    attentionNorm: `${blockName(index)}.input_layernorm.weight`,
    mlpNorm: `${blockName(index)}.post_attention_layernorm.weight`,
    headNorms: headNorms
      ? {
          queries: `${blockName(index)}.self_attn.q_norm.weight`,
          keys: `${blockName(index)}.self_attn.k_norm.weight`,
        }
      : undefined,
  };
}

/** The last linear layer, where it is not the embedding. */
export function headSpec({ vocabSize, hiddenSize }: LanguageModelConfig): LinearSpec {
  return { module: HEAD_MODULE, shape: [vocabSize, hiddenSize], bias: false };
}

/**
 * Holds a model against its config, before a weight is read. Every tensor must have the shape that the config gives it, and every
 * tensor must be known: one that is not belongs to a feature that would be left out.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT`
 */
export function checkTensors(model: Model, config: LanguageModelConfig): void {
  const { hiddenSize, vocabSize, headDim } = config;
  const left = new Set(model.names.filter((name) => !IGNORED.test(name)));
  const where = plain(model.path);
  const fail = (message: string) => {
    // Of what another tool has quantized, that it is says more than which tensor shows it first.
    const obstacle = model.tensors.some(({ quantized }) => quantized) ? undefined : model.obstacle();
    if (obstacle === undefined) return new HqqError('ERR_CHECKPOINT_CONTENT', message);
    const what = `${where} ${obstacle.what}. What can be computed with are floats, and what hqq has quantized`;
    return new HqqError('ERR_CHECKPOINT_CONTENT', `${what}. ${obstacle.advice}`);
  };
  const take = (name: string, expected: readonly number[]) => {
    if (!left.delete(name)) throw fail(`${where} has no tensor ${name}.`);
    const got = model.shape(name);
    if (got.length === expected.length && got.every((size, i) => size === expected[i])) return;
    const message = `Expected ${name} to be ${expected.join(' x ')} after config.json, got ${got.join(' x ')}`;
    throw fail(`${where}: ${message}.`);
  };
  const takeLinear = ({ module, shape, bias }: LinearSpec) => {
    if (bias) take(`${module}.bias`, [shape[0]]);
    take(`${module}.weight`, shape);
  };
  take(EMBEDDING, [vocabSize, hiddenSize]);
  for (let index = 0; index < config.layers; index++) {
    const { linears, attentionNorm, mlpNorm, headNorms } = blockSpec(config, index);
    Object.values(linears).forEach(takeLinear);
    for (const norm of [attentionNorm, mlpNorm]) take(norm, [hiddenSize]);
    for (const norm of headNorms ? [headNorms.queries, headNorms.keys] : []) take(norm, [headDim]);
  }
  take(FINAL_NORM, [hiddenSize]);
  if (config.tied) left.delete(`${HEAD_MODULE}.weight`);
  else takeLinear(headSpec(config));
  if (left.size === 0) return;
  const message = `${where} holds tensors that the architecture of its config.json does not have`;
  throw fail(`${message}: ${quoteSome([...left])}.`);
}
