/** What llama.cpp calls the linear layers of a block, and what files of Hugging Face do. */
const LAYERS: Readonly<Record<string, string>> = {
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
};

/** The module that a layer of llama.cpp is, by the names of the Llama family; others stay what they are called. */
export function moduleOfGgml(name: string): string {
  if (name === 'output') return 'lm_head';
  const [, block, layer = ''] = /^blk\.(\d+)\.(\w+)$/.exec(name) ?? [];
  return Object.hasOwn(LAYERS, layer) ? `model.layers.${block}.${LAYERS[layer]}` : name;
}
