// Folders of Llamas whose weights are random: as large as a benchmark wants them, and the same in every run.
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { gaussian, toBfloat16 } from './measure.mjs';

const product = (shape) => shape.reduce((count, size) => count * size, 1);

/** Names and shapes of a Llama's tensors, in the order in which they are written. */
export function llamaTensors({ hidden, ffn, layers, vocabulary, kv = hidden, tied = false }) {
  const weight = (name, ...shape) => ({ name, shape, count: product(shape) });
  const blocks = Array.from({ length: layers }, (_, i) => {
    const of = (name) => `model.layers.${i}.${name}.weight`;
    return [
      weight(of('input_layernorm'), hidden),
      weight(of('post_attention_layernorm'), hidden),
      weight(of('self_attn.q_proj'), hidden, hidden),
      weight(of('self_attn.k_proj'), kv, hidden),
      weight(of('self_attn.v_proj'), kv, hidden),
      weight(of('self_attn.o_proj'), hidden, hidden),
      weight(of('mlp.gate_proj'), ffn, hidden),
      weight(of('mlp.up_proj'), ffn, hidden),
      weight(of('mlp.down_proj'), hidden, ffn),
    ];
  });
  const ends = [weight('model.norm.weight', hidden), ...(tied ? [] : [weight('lm_head.weight', vocabulary, hidden)])];
  return [weight('model.embed_tokens.weight', vocabulary, hidden), ...blocks.flat(), ...ends];
}

/**
 * Writes such a model in bfloat16, with heads of 64, and has it on disk before it returns. Weights differ in every tensor: each
 * is a window into one sequence, at another place.
 */
export function writeLlama(folder, sizes) {
  const tensors = llamaTensors(sizes);
  const { hidden, ffn, layers, vocabulary, kv = hidden, tied = false } = sizes;
  const pool = toBfloat16(gaussian(ffn * hidden + 4096 * tensors.length, 0.02));
  mkdirSync(folder);
  let offset = 0;
  const header = {};
  for (const { name, shape, count } of tensors) {
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, (offset += 2 * count)] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(join(folder, 'model.safetensors'), 'w');
  writeSync(file, Buffer.concat([length, json]));
  tensors.forEach(({ count }, i) => {
    for (let left = count; left > 0; ) {
      const part = pool.subarray(i * 4096, i * 4096 + Math.min(left, pool.length - i * 4096));
      writeSync(file, new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
      left -= part.length;
    }
  });
  closeSync(file);
  const config = {
    ...{ architectures: ['LlamaForCausalLM'], model_type: 'llama', hidden_size: hidden, intermediate_size: ffn },
    ...{
      num_hidden_layers: layers,
      num_attention_heads: hidden / 64,
      num_key_value_heads: kv / 64,
      vocab_size: vocabulary,
    },
    ...{ max_position_embeddings: 4096, tie_word_embeddings: tied },
  };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  execFileSync('sync');
  return { tensors, parameters: tensors.reduce((sum, { count }) => sum + count, 0), pool };
}
