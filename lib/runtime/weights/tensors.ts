import { HqqError } from '../../messages/errors.js';
import { plain, quoteSome } from '../../messages/text.js';
import type { Model } from '../../models/model.js';
import { type BlockNormParts, blockName } from '../blocks/block.js';
import { HEAD_MODULE } from '../blocks/head.js';
import type { LanguageModelConfig } from '../config/model-config.js';

// What tensors a model has, by its config: their names and shapes.

/** A linear layer. */
export interface LinearSpec {
  /** As checkpoints call it: `model.layers.0.self_attn.q_proj`. */
  readonly module: string;
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  readonly bias: boolean;
  /** Where it is an expert's, and all experts lie in one tensor: that, and which of its matrices of this shape it is. */
  readonly stack?: { readonly tensor: string; readonly shape: readonly number[]; readonly index: number };
}

/** A gated MLP. */
export interface MlpSpec {
  readonly gateUp: readonly LinearSpec[];
  readonly down: LinearSpec;
}

/** An MLP that is several. */
export interface ExpertsSpec {
  readonly router: LinearSpec;
  readonly experts: readonly MlpSpec[];
}

/** The weight of a norm, `[size]`. */
export interface NormSpec {
  readonly name: string;
  readonly size: number;
}

/** A block. */
export interface BlockSpec {
  readonly qkv: readonly LinearSpec[];
  readonly o: LinearSpec;
  readonly mlp: MlpSpec | ExpertsSpec;
  readonly norms: { readonly [K in keyof BlockNormParts]: NormSpec };
}

/** Whether there is a tensor of this name, or one that is a quantized layer's weight. */
type Has = (name: string) => boolean;

/** `[vocabSize, hiddenSize]` */
export const EMBEDDING = 'model.embed_tokens.weight';
/** `[hiddenSize]` */
export const FINAL_NORM = 'model.norm.weight';

/** What some files hold beside the weights: computed from the config here. */
const IGNORED = /(^|\.)rotary_emb\.inv_freq$/;

/** @param has Tells how experts lie: as layers of their own, or in one tensor. */
export function blockSpec(config: LanguageModelConfig, index: number, has: Has): BlockSpec {
  const { hiddenSize, heads, kvHeads, headDim, qkvBias, outputBias, fused, headNorms, norms } = config;
  const at = blockName(index);
  const linear = (module: string, outs: number, ins: number, bias: boolean): LinearSpec => {
    return { module: `${at}.${module}`, shape: [outs, ins], bias };
  };
  const [queries, keys] = [heads * headDim, kvHeads * headDim];
  const qkv = fused
    ? [linear('self_attn.qkv_proj', queries + 2 * keys, hiddenSize, qkvBias)]
    : [
        linear('self_attn.q_proj', queries, hiddenSize, qkvBias),
        linear('self_attn.k_proj', keys, hiddenSize, qkvBias),
        linear('self_attn.v_proj', keys, hiddenSize, qkvBias),
      ];
  const norm = (module: string, size: number): NormSpec => ({ name: `${at}.${module}.weight`, size });
  const block = Object.entries(norms).map(([place, module]) => [place, norm(module, hiddenSize)]);
  const together = headNorms === 'together';
  const ofHeads = headNorms !== 'none' && {
    queries: norm('self_attn.q_norm', together ? queries : headDim),
    keys: norm('self_attn.k_norm', together ? keys : headDim),
  };
  return {
    ...{ qkv, o: linear('self_attn.o_proj', hiddenSize, queries, outputBias) },
    mlp: config.experts?.blocks[index] ? expertsSpec(config, config.experts, at, has) : denseSpec(config, linear),
    norms: { ...Object.fromEntries(block), ...ofHeads },
  };
}

function denseSpec(
  { hiddenSize, intermediateSize: width, mlpBias: bias, fused }: LanguageModelConfig,
  linear: (module: string, outs: number, ins: number, bias: boolean) => LinearSpec,
): MlpSpec {
  const gateUp = fused
    ? [linear('mlp.gate_up_proj', 2 * width, hiddenSize, bias)]
    : [linear('mlp.gate_proj', width, hiddenSize, bias), linear('mlp.up_proj', width, hiddenSize, bias)];
  return { gateUp, down: linear('mlp.down_proj', hiddenSize, width, bias) };
}

/** Newer checkpoints have experts in `mlp`, also where older ones of their architecture call it otherwise, and may have all in one tensor. */
function expertsSpec(
  { hiddenSize }: LanguageModelConfig,
  { count, width, names }: NonNullable<LanguageModelConfig['experts']>,
  block: string,
  has: Has,
): ExpertsSpec {
  const modules = [names.module, 'mlp'].map((module) => `${block}.${module}`);
  const at = modules.find((module) => has(`${module}.gate.weight`)) ?? modules[0]!;
  const [gateUp, down] = [`${at}.experts.gate_up_proj`, `${at}.experts.down_proj`];
  const experts = Array.from({ length: count }, (_, expert): MlpSpec => {
    const module = `${at}.experts.${expert}`;
    const shape = [width, hiddenSize] as const;
    const half = (name: string, turn: number): LinearSpec => ({
      ...{ module: `${module}.${name}`, shape, bias: false },
      ...(has(gateUp) && {
        stack: { tensor: gateUp, shape: [count, 2 * width, hiddenSize], index: 2 * expert + turn },
      }),
    });
    return {
      gateUp: [half(names.gate, 0), half(names.up, 1)],
      down: {
        ...{ module: `${module}.${names.down}`, shape: [hiddenSize, width], bias: false },
        ...(has(down) && { stack: { tensor: down, shape: [count, hiddenSize, width], index: expert } }),
      },
    };
  });
  return { router: { module: `${at}.gate`, shape: [count, hiddenSize], bias: false }, experts };
}

/** All linear layers of a block. */
export function linearsOf({ qkv, o, mlp }: BlockSpec): readonly LinearSpec[] {
  const ofMlp = ({ gateUp, down }: MlpSpec) => [...gateUp, down];
  return [...qkv, o, ...('router' in mlp ? [mlp.router, ...mlp.experts.flatMap(ofMlp)] : ofMlp(mlp))];
}

/** `[outFeatures, inFeatures]` of every linear layer of a model, by module. A head that is the embedding counts as a layer of its own. */
export function linearShapes(config: LanguageModelConfig, has: Has): ReadonlyMap<string, LinearSpec['shape']> {
  const blocks = Array.from({ length: config.layers }, (_, index) => linearsOf(blockSpec(config, index, has)));
  return new Map([...blocks.flat(), headSpec(config)].map(({ module, shape }) => [module, shape]));
}

/** Modules of a block that are quantized alike, since engines run them as one; the router of experts, which stays, is none of them. */
export function unitsOf({ qkv, o, mlp }: BlockSpec): readonly (readonly string[])[] {
  const mlps = 'router' in mlp ? mlp.experts : [mlp];
  const units = [qkv, [o], mlps.flatMap(({ gateUp }) => gateUp), mlps.map(({ down }) => down)];
  return units.map((linears) => linears.map(({ module }) => module));
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
  const { hiddenSize, vocabSize } = config;
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
  const taken = new Set<string>();
  const takeLinear = ({ module, shape, bias, stack }: LinearSpec) => {
    if (stack) {
      if (!taken.has(stack.tensor)) take(stack.tensor, stack.shape);
      taken.add(stack.tensor);
      return;
    }
    if (bias) take(`${module}.bias`, [shape[0]]);
    take(`${module}.weight`, shape);
  };
  take(EMBEDDING, [vocabSize, hiddenSize]);
  for (let index = 0; index < config.layers; index++) {
    const spec = blockSpec(config, index, (name) => model.shapes.has(name));
    linearsOf(spec).forEach(takeLinear);
    for (const { name, size } of Object.values(spec.norms)) take(name, [size]);
  }
  take(FINAL_NORM, [hiddenSize]);
  if (config.tied) left.delete(`${HEAD_MODULE}.weight`);
  else takeLinear(headSpec(config));
  if (left.size === 0) return;
  const message = `${where} holds tensors that the architecture of its config.json does not have`;
  throw fail(`${message}: ${quoteSome([...left])}.`);
}
