// Seven tiny models with random weights, one of each way that models of these families differ in: what they are depends on nothing.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { randomOf } from '../../test/support/random.mjs';

const COMMON = {
  ...{ hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2 },
  ...{ vocab_size: 288, max_position_embeddings: 256, rms_norm_eps: 1e-5, rope_theta: 10000, hidden_act: 'silu' },
  ...{ bos_token_id: 256, eos_token_id: 257, tie_word_embeddings: false, torch_dtype: 'float32' },
};
const STRETCHED = {
  ...{ rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 },
};
const of = (className, modelType, own = {}) => ({
  architectures: [className],
  model_type: modelType,
  ...COMMON,
  ...own,
});

/** config.json of each, by name. */
export const FAMILIES = {
  llama: of('LlamaForCausalLM', 'llama'),
  'llama-tied': of('LlamaForCausalLM', 'llama', { tie_word_embeddings: true }),
  'llama-biases': of('LlamaForCausalLM', 'llama', { attention_bias: true, mlp_bias: true, head_dim: 32 }),
  'llama-stretched': of('LlamaForCausalLM', 'llama', { rope_scaling: STRETCHED }),
  mistral: of('MistralForCausalLM', 'mistral', { sliding_window: null }),
  qwen2: of('Qwen2ForCausalLM', 'qwen2', { use_sliding_window: false }),
  qwen3: of('Qwen3ForCausalLM', 'qwen3', { head_dim: 32, tie_word_embeddings: true, attention_bias: false }),
};

/** The ids that each is to go on from. */
export const IDS = Array.from({ length: 100 }, (_, i) => (i * 37 + ((i * i) % 11)) % 256);

/** Names and shapes of a model's tensors. */
function shapesOf(config) {
  const { hidden_size: hidden, intermediate_size: inner, vocab_size: vocab } = config;
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: size = hidden / heads } = config;
  const qwen2 = config.model_type === 'qwen2';
  const shapes = { 'model.embed_tokens.weight': [vocab, hidden], 'model.norm.weight': [hidden] };
  for (let block = 0; block < config.num_hidden_layers; block++) {
    const name = (part) => `model.layers.${block}.${part}`;
    const linear = (module, outs, ins, bias) => {
      shapes[name(`${module}.weight`)] = [outs, ins];
      if (bias) shapes[name(`${module}.bias`)] = [outs];
    };
    const bias = config.attention_bias === true;
    linear('self_attn.q_proj', heads * size, hidden, bias || qwen2);
    linear('self_attn.k_proj', kvHeads * size, hidden, bias || qwen2);
    linear('self_attn.v_proj', kvHeads * size, hidden, bias || qwen2);
    linear('self_attn.o_proj', hidden, heads * size, bias);
    linear('mlp.gate_proj', inner, hidden, config.mlp_bias);
    linear('mlp.up_proj', inner, hidden, config.mlp_bias);
    linear('mlp.down_proj', hidden, inner, config.mlp_bias);
    shapes[name('input_layernorm.weight')] = [hidden];
    shapes[name('post_attention_layernorm.weight')] = [hidden];
    if (config.model_type === 'qwen3')
      for (const norm of ['q_norm', 'k_norm']) shapes[name(`self_attn.${norm}.weight`)] = [size];
  }
  if (!config.tie_word_embeddings) shapes['lm_head.weight'] = [vocab, hidden];
  return shapes;
}

/** Sizes at which attention, positions among it, decides: with smaller weights a random model forgets where tokens stand. */
function valuesOf(name, [outs, ins], random) {
  const isNorm = /norm\.weight$/.test(name);
  const spread = /lm_head|embed_tokens/.test(name) ? 12 : /[qk]_proj/.test(name) ? 6 : 4;
  const width = isNorm || ins === undefined ? 0.5 : spread / Math.sqrt(ins);
  const values = new Float32Array(outs * (ins ?? 1));
  for (let i = 0; i < values.length; i++) values[i] = (isNorm ? 1 : 0) + width * (random() - 0.5);
  return values;
}

/** Printable characters for bytes, as GPT-2 has them. */
function byteCharacters() {
  const kept = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(kept(byte) ? byte : next++));
}

/** A tokenizer of bytes. */
function tokenizer() {
  const special = (id, content) => {
    return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  };
  return {
    ...{ version: '1.0', truncation: null, padding: null, normalizer: null, post_processor: null },
    added_tokens: [special(256, '<s>'), special(257, '</s>')],
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', vocab: Object.fromEntries(byteCharacters().map((one, id) => [one, id])), merges: [] },
  };
}

/** Writes a safetensors file of float32. */
export function writeTensors(path, tensors) {
  const header = {};
  let at = 0;
  for (const [name, { shape, values }] of Object.entries(tensors)) {
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at + values.byteLength] };
    at += values.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const text = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, 0x20)]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const bytes = Object.values(tensors).map(({ values }) => Buffer.from(values.buffer));
  writeFileSync(path, Buffer.concat([length, text, ...bytes]));
}

/** Rows of heads of `size` in the order that llama.cpp's converter undoes: what a model is that nobody has permuted. */
function unturned({ shape: [rows, cols = 1], values }, size) {
  const from = (row) =>
    Math.floor(row / size) * size + (row % size < size / 2 ? 2 * (row % size) : 2 * (row % size) - size + 1);
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) out.set(values.subarray(from(row) * cols, (from(row) + 1) * cols), row * cols);
  return out;
}

/**
 * Writes a model as a Hugging Face folder. `turned: false`: with rows of q and k such that the permutation of a GGUF file takes them back.
 * `own`: what its config.json says otherwise.
 */
export function writeFamily(folder, name, { turned = true, own = {} } = {}) {
  mkdirSync(folder, { recursive: true });
  const config = { ...FAMILIES[name], ...own };
  const random = randomOf(7 + Object.keys(FAMILIES).indexOf(name));
  const size = config.head_dim ?? config.hidden_size / config.num_attention_heads;
  const tensors = Object.entries(shapesOf(config)).map(([tensor, shape]) => {
    const values = valuesOf(tensor, shape, random);
    const plain = turned || !/[qk]_proj/.test(tensor);
    return [tensor, { shape, values: plain ? values : unturned({ shape, values }, size) }];
  });
  writeTensors(join(folder, 'model.safetensors'), Object.fromEntries(tensors));
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config, null, 2));
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer()));
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ bos_token: '<s>', eos_token: '</s>' }));
  return folder;
}
