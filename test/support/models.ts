import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

// Small checkpoints that look like trained ones, written by the tests' own few lines, not by the writer under test.

export interface SmallTensor {
  readonly shape: readonly number[];
  /** Default: normally distributed weights that depend on the tensor's name alone. */
  readonly data?: Float32Array;
}

function weightsFor(name: string, length: number): Float32Array {
  let state = [...name].reduce((hash, char) => Math.imul(hash ^ char.charCodeAt(0), 0x01000193), 0x811c9dc5) | 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 32;
  };
  return Float32Array.from({ length }, () => (next() + next() + next() + next()) * 0.05);
}

/** The bytes of a safetensors file of float32 tensors. */
export function safetensorsBytes(tensors: Readonly<Record<string, SmallTensor>>): Buffer {
  let offset = 0;
  const parts: Buffer[] = [];
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } };
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    const floats =
      data ??
      weightsFor(
        name,
        shape.reduce((product, size) => product * size, 1),
      );
    const bytes = Buffer.from(floats.buffer, floats.byteOffset, floats.byteLength);
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, (offset += bytes.byteLength)] };
    parts.push(bytes);
  }
  const text = JSON.stringify(header);
  const json = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  return Buffer.concat([length, json, ...parts]);
}

/** Names and shapes of a small Llama: seven linear weights a layer. */
export function llamaTensors(layers: number, width: number): Record<string, SmallTensor> {
  const tensors: Record<string, SmallTensor> = { 'model.embed_tokens.weight': { shape: [96, width] } };
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    for (const side of ['q', 'k', 'v', 'o']) tensors[`${at}.self_attn.${side}_proj.weight`] = { shape: [width, width] };
    for (const side of ['gate', 'up']) tensors[`${at}.mlp.${side}_proj.weight`] = { shape: [2 * width, width] };
    tensors[`${at}.mlp.down_proj.weight`] = { shape: [width, 2 * width] };
    for (const side of ['input', 'post_attention']) tensors[`${at}.${side}_layernorm.weight`] = { shape: [width] };
  }
  tensors['model.norm.weight'] = { shape: [width] };
  tensors['lm_head.weight'] = { shape: [96, width] };
  return tensors;
}

/** A Hugging Face folder with a small Llama and a tokenizer that is carried over. */
export function writeLlama(folder: string, layers = 2, width = 64): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'model.safetensors'), safetensorsBytes(llamaTensors(layers, width)));
  const size = { hidden_size: width, num_hidden_layers: layers, tie_word_embeddings: false, torch_dtype: 'float32' };
  const config = { architectures: ['LlamaForCausalLM'], model_type: 'llama', ...size };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config, null, 2));
  writeFileSync(join(folder, 'tokenizer.json'), '{"version": "1.0"}\n');
  return folder;
}
