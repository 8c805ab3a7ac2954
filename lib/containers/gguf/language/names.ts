// What Hugging Face and llama.cpp call the tensors of language models.

/** A family of models: how it is named on both sides, and whether queries and keys lie in another order of rows. */
export interface Family {
  /** `architectures` of config.json. */
  readonly className: string;
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** `general.architecture`. */
  readonly architecture: string;
  /**
   * Whether llama.cpp turns neighbouring numbers of a head, and not, as transformers does, those of its two halves: then rows of q and
   * k are in another order there.
   */
  readonly permuted: boolean;
  /** Whether queries and keys have norms. */
  readonly headNorms: boolean;
  /** Whether q, k and v have biases whatever config.json says. */
  readonly qkvBias: boolean;
  /** Numbers of a head where config.json says none, as transformers has it; absent: what the hidden size leaves for each. */
  readonly headDim?: number;
}

const llama = { architecture: 'llama', permuted: true, headNorms: false, qkvBias: false };

/** The first of those with the same architecture is what a GGUF file of it becomes. */
export const FAMILIES: readonly Family[] = [
  { className: 'LlamaForCausalLM', modelType: 'llama', ...llama },
  { className: 'MistralForCausalLM', modelType: 'mistral', ...llama },
  // biome-ignore format: a row a family
  { className: 'Qwen2ForCausalLM', modelType: 'qwen2', architecture: 'qwen2', permuted: false, headNorms: false, qkvBias: true },
  // biome-ignore format: a row a family
  { className: 'Qwen3ForCausalLM', modelType: 'qwen3', architecture: 'qwen3', permuted: false, headNorms: true, qkvBias: false, headDim: 128 },
];

/** Modules outside of blocks. */
const OUTSIDE: readonly (readonly [ours: string, theirs: string])[] = [
  ['model.embed_tokens', 'token_embd'],
  ['model.norm', 'output_norm'],
  ['lm_head', 'output'],
];

/** Modules of a block. */
const INSIDE: readonly (readonly [ours: string, theirs: string])[] = [
  ['input_layernorm', 'attn_norm'],
  ['self_attn.q_proj', 'attn_q'],
  ['self_attn.k_proj', 'attn_k'],
  ['self_attn.v_proj', 'attn_v'],
  ['self_attn.o_proj', 'attn_output'],
  ['self_attn.q_norm', 'attn_q_norm'],
  ['self_attn.k_norm', 'attn_k_norm'],
  ['post_attention_layernorm', 'ffn_norm'],
  ['mlp.gate_proj', 'ffn_gate'],
  ['mlp.up_proj', 'ffn_up'],
  ['mlp.down_proj', 'ffn_down'],
];

/** Where a tensor stands in a model: its module in the block of a number, or outside, and what of the module it is. */
interface Place {
  readonly block: number | undefined;
  readonly module: string;
  readonly part: string;
}

/** A number as a name has it: 0, 7, 31. */
const PLAIN_NUMBER = '(0|[1-9]\\d{0,4})';
const OURS = new RegExp(`^(?:model\\.layers\\.${PLAIN_NUMBER}\\.)?(.+)\\.(weight|bias)$`);
const THEIRS = new RegExp(`^(?:blk\\.${PLAIN_NUMBER}\\.)?(.+)\\.(weight|bias)$`);

function placeOf(pattern: RegExp, name: string): Place | undefined {
  const [, block, module, part] = pattern.exec(name) ?? [];
  if (module === undefined || part === undefined) return undefined;
  return { block: block === undefined ? undefined : Number(block), module, part };
}

function translated(name: string, to: 'theirs' | 'ours'): string | undefined {
  const place = placeOf(to === 'theirs' ? OURS : THEIRS, name);
  if (place === undefined) return undefined;
  const [from, into] = to === 'theirs' ? [0, 1] : [1, 0];
  const pair = (place.block === undefined ? OUTSIDE : INSIDE).find((one) => one[from] === place.module);
  if (pair === undefined) return undefined;
  const inner = place.block === undefined ? '' : `${to === 'theirs' ? 'blk' : 'model.layers'}.${place.block}.`;
  return `${inner}${pair[into]}.${place.part}`;
}

/** What llama.cpp calls a tensor of Hugging Face; undefined where it is none of a family's. */
export function theirName(name: string): string | undefined {
  return translated(name, 'theirs');
}

/** What Hugging Face calls a tensor of llama.cpp; undefined where it is none of a family's. */
export function ourName(name: string): string | undefined {
  return translated(name, 'ours');
}

/** Which heads the rows of a tensor are, where they are some that are turned: of queries, of keys; by its name in Hugging Face. */
export function turnedHeads(name: string): 'queries' | 'keys' | undefined {
  if (/\.self_attn\.q_proj\.(weight|bias)$/.test(name)) return 'queries';
  return /\.self_attn\.k_proj\.(weight|bias)$/.test(name) ? 'keys' : undefined;
}

/** Place of a tensor in a GGUF file, by its name there: embeddings, blocks, the last norm, the head. */
export function orderOf(name: string): number {
  const [, block] = /^blk\.(\d+)\./.exec(name) ?? [];
  const module = name.replace(/^blk\.\d+\./, '').replace(/\.(weight|bias)$/, '');
  if (block === undefined) return ['rope_freqs', 'token_embd'].includes(module) ? 0 : 1e9;
  const inside = INSIDE.findIndex(([, theirs]) => theirs === module);
  return 1 + Number(block) * 64 + 2 * inside + (name.endsWith('.bias') ? 1 : 0);
}
