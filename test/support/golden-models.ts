import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type SmallTensor, safetensorsBytes } from './models.js';

// Small models of every architecture, whose logits transformers has computed: scripts/golden-language-models.py writes the file.

interface Config extends Record<string, unknown> {
  readonly model_type: string;
  readonly hidden_size: number;
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  readonly head_dim?: number | null;
  readonly vocab_size: number;
  readonly num_local_experts?: number;
  readonly moe_intermediate_size?: number;
}

/** One of them. */
export interface GoldenModel {
  readonly name: string;
  readonly config: Config;
  /** Of the last token of texts of these lengths. */
  readonly logits: readonly (readonly number[])[];
}

/** The lengths, and the models. */
export const GOLDEN_MODELS = JSON.parse(
  readFileSync(new URL('../golden/language-models.json', import.meta.url), 'utf8'),
) as { readonly lengths: readonly number[]; readonly cases: readonly GoldenModel[] };

/** The text of so many tokens that they have read. */
export function goldenIds(length: number): number[] {
  return Array.from({ length }, (_, at) => (at * at * 7 + at * 3) % 40);
}

/** The model of this name. */
export function goldenModel(name: string): GoldenModel {
  return GOLDEN_MODELS.cases.find((golden) => golden.name === name)!;
}

/** How experts lie in files: all in one tensor, or each for itself, as their first files have them. */
export type ExpertLayout = 'stacked' | 'apart';

/** Writes one as a folder. */
export function writeGolden(folder: string, { config }: GoldenModel, experts: ExpertLayout = 'apart'): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const weights = weightsOf(config);
  writeFileSync(join(folder, 'model.safetensors'), safetensorsBytes(experts === 'apart' ? apart(weights) : weights));
  return folder;
}

type Weights = Record<string, Required<SmallTensor>>;

const NORMS: Readonly<Record<string, readonly string[]>> = {
  olmo2: ['post_attention', 'post_feedforward'],
  gemma2: ['input', 'post_attention', 'pre_feedforward', 'post_feedforward'],
  gemma3_text: ['input', 'post_attention', 'pre_feedforward', 'post_feedforward'],
};

/** Names and shapes of a model's tensors, experts stacked. */
function shapes(c: Config): Record<string, number[]> {
  const headDim = c.head_dim ?? c.hidden_size / c.num_attention_heads;
  const [queries, keys] = [c.num_attention_heads * headDim, c.num_key_value_heads * headDim];
  const all: Record<string, number[]> = {
    'model.embed_tokens.weight': [c.vocab_size, c.hidden_size],
    'model.norm.weight': [c.hidden_size],
  };
  if (!c.tie_word_embeddings) all['lm_head.weight'] = [c.vocab_size, c.hidden_size];
  for (let layer = 0; layer < c.num_hidden_layers; layer++) {
    const at = `model.layers.${layer}`;
    const linear = (name: string, out: number, cols: number, bias: boolean) => {
      all[`${at}.${name}.weight`] = [out, cols];
      if (bias) all[`${at}.${name}.bias`] = [out];
    };
    const attentionBias = c.attention_bias === true;
    const qkv = { q: queries, k: keys, v: keys };
    if (c.model_type === 'phi3') linear('self_attn.qkv_proj', queries + 2 * keys, c.hidden_size, false);
    else
      for (const [name, out] of Object.entries(qkv))
        linear(`self_attn.${name}_proj`, out, c.hidden_size, attentionBias || c.model_type === 'qwen2');
    linear('self_attn.o_proj', c.hidden_size, queries, attentionBias);
    if (hasExperts(c, layer)) {
      const [count, width] = [c.num_local_experts!, c.moe_intermediate_size ?? c.intermediate_size];
      linear('mlp.gate', count, c.hidden_size, false);
      all[`${at}.mlp.experts.gate_up_proj`] = [count, 2 * width, c.hidden_size];
      all[`${at}.mlp.experts.down_proj`] = [count, c.hidden_size, width];
    } else {
      const bias = c.mlp_bias === true;
      if (c.model_type === 'phi3') linear('mlp.gate_up_proj', 2 * c.intermediate_size, c.hidden_size, bias);
      else for (const name of ['gate', 'up']) linear(`mlp.${name}_proj`, c.intermediate_size, c.hidden_size, bias);
      linear('mlp.down_proj', c.hidden_size, c.intermediate_size, bias);
    }
    if (['qwen3', 'qwen3_moe', 'gemma3_text', 'olmo2'].includes(c.model_type))
      for (const [name, width] of Object.entries({ q: queries, k: keys }))
        all[`${at}.self_attn.${name}_norm.weight`] = [c.model_type === 'olmo2' ? width : headDim];
    for (const name of NORMS[c.model_type] ?? ['input', 'post_attention'])
      all[`${at}.${name}_layernorm.weight`] = [c.hidden_size];
  }
  return all;
}

function hasExperts(c: Config, layer: number): boolean {
  const { num_local_experts: count = 0, mlp_only_layers: dense = [], decoder_sparse_step: step = 1 } = c;
  return count > 0 && !(dense as number[]).includes(layer) && (layer + 1) % (step as number) === 0;
}

/** The weights by the formula of the script: tensors in the order of their names. */
function weightsOf(config: Config): Weights {
  let state = 1;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5;
  const sorted = Object.entries(shapes(config)).sort(([a], [b]) => (a < b ? -1 : 1));
  const entries = sorted.map(([name, shape]) => {
    const scale = shape.length > 1 ? (v: number) => (v * 4) / shape.at(-1)! ** 0.5 : (v: number) => v;
    const of = name.includes('norm') ? (v: number) => 1 + v : scale;
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => of(next()));
    return [name, { shape, data }] as const;
  });
  return Object.fromEntries(entries);
}

/** Stacks cut into the layers that they are of. */
function apart(weights: Weights): Weights {
  const isMixtral = Object.keys(weights).every((name) => !name.includes('q_norm'));
  const names = isMixtral ? ['w1', 'w3', 'w2'] : ['gate_proj', 'up_proj', 'down_proj'];
  const entries = Object.entries(weights).flatMap(([name, { shape, data }]): [string, Required<SmallTensor>][] => {
    const stack = /^(.*\.mlp)\.(experts\.gate_up_proj|experts\.down_proj|gate\.weight)$/.exec(name);
    if (!stack) return [[name, { shape, data }]];
    const module = isMixtral ? stack[1]!.replace(/mlp$/, 'block_sparse_moe') : stack[1]!;
    if (stack[2] === 'gate.weight') return [[`${module}.gate.weight`, { shape, data }]];
    const layers = stack[2] === 'experts.down_proj' ? [names[2]!] : names.slice(0, 2);
    const [count, rows, cols] = [shape[0]!, shape[1]! / layers.length, shape[2]!];
    return Array.from({ length: count * layers.length }, (_, i) => {
      const layer = `${module}.experts.${Math.floor(i / layers.length)}.${layers[i % layers.length]}.weight`;
      return [layer, { shape: [rows, cols], data: data.subarray(i * rows * cols, (i + 1) * rows * cols) }];
    });
  });
  return Object.fromEntries(entries);
}
