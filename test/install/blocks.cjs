'use strict';
// Runs a language model block by block, with what the installed package exports, and compares with the whole one. Prints JSON.
const { mkdtempSync, rmSync, writeFileSync } = require('node:fs');
const { tmpdir } = require('node:os');
const path = require('node:path');

/** A small Llama in float32, in a folder of its own. */
function writeModel() {
  const [width, inner, tokens, layers] = [32, 48, 40, 3];
  const shapes = { 'model.embed_tokens.weight': [tokens, width], 'model.norm.weight': [width] };
  for (let i = 0; i < layers; i++) {
    const at = `model.layers.${i}`;
    for (const side of 'qkvo') shapes[`${at}.self_attn.${side}_proj.weight`] = [width, width];
    for (const name of ['gate', 'up']) shapes[`${at}.mlp.${name}_proj.weight`] = [inner, width];
    shapes[`${at}.mlp.down_proj.weight`] = [width, inner];
    for (const norm of ['input', 'post_attention']) shapes[`${at}.${norm}_layernorm.weight`] = [width];
  }
  const header = {};
  const parts = [];
  let offset = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const count = shape.reduce((product, size) => product * size);
    const data = Float32Array.from({ length: count }, (_, i) => Math.sin(i * 1.7 + name.length));
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, (offset += data.byteLength)] };
    parts.push(Buffer.from(data.buffer));
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.byteLength));
  const folder = mkdtempSync(path.join(tmpdir(), 'hqq-blocks-'));
  writeFileSync(path.join(folder, 'model.safetensors'), Buffer.concat([length, json, ...parts]));
  const sizes = { hidden_size: width, intermediate_size: inner, vocab_size: tokens, num_hidden_layers: layers };
  const config = { architectures: ['LlamaForCausalLM'], num_attention_heads: 4, tie_word_embeddings: true, ...sizes };
  writeFileSync(path.join(folder, 'config.json'), JSON.stringify({ ...config, rms_norm_eps: 1e-5 }));
  return folder;
}

/** @param {{ openBlockSource: Function, loadLanguageModel: Function }} runtime */
module.exports = async function blocks({ openBlockSource, loadLanguageModel }) {
  const folder = writeModel();
  try {
    const ids = [3, 1, 4, 1, 5, 9, 2, 6];
    const source = await openBlockSource(folder);
    const modules = [];
    let texts = [await source.embed(ids)];
    for await (const block of source.blocks()) {
      texts = await block.forward(texts, { tap: ({ module, rows }) => modules.push(`${module} ${rows}`) });
    }
    const head = await source.head();
    const logits = await head.forward(texts[0]);
    await source.close();
    const model = await loadLanguageModel(folder);
    const expected = await model.forward(ids, model.createCache(), { logits: 'all' });
    await model.close();
    const same = Buffer.from(logits.buffer).equals(Buffer.from(expected.buffer));
    console.log(JSON.stringify({ same, modules: modules.length, last: modules.at(-1) }));
  } finally {
    rmSync(folder, { recursive: true });
  }
};

if (require.main === module) module.exports(require('hqq/runtime'));
