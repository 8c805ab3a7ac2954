import type { Description } from '../description.js';
import type { Fields } from '../fields.js';
import type { Sizes } from './architecture.js';

/** Defaults of Gemma 2 and 3. */
export const GEMMA_DEFAULTS = {
  head_dim: 256,
  hidden_activation: 'gelu_pytorch_tanh',
  num_attention_heads: 8,
  num_key_value_heads: 4,
  query_pre_attn_scalar: 256,
  sliding_window: 4096,
  tie_word_embeddings: true,
};

/** What Gemma 2 and 3 have in common: norms before and after, of 1 + weight; embeddings by the root of their length. */
export function describeGemma(
  fields: Fields,
  { hiddenSize }: Sizes,
): Partial<Description> & Pick<Description, 'multipliers'> {
  if (fields.flag('use_bidirectional_attention', false))
    throw fields.unsupported('use_bidirectional_attention', 'false');
  return {
    norms: {
      beforeAttention: 'input_layernorm',
      afterAttention: 'post_attention_layernorm',
      beforeMlp: 'pre_feedforward_layernorm',
      afterMlp: 'post_feedforward_layernorm',
    },
    normOffset: 1,
    multipliers: {
      embedding: Math.fround(Math.sqrt(hiddenSize)),
      attention: fields.number('query_pre_attn_scalar') ** -0.5,
      residual: 1,
      logits: 1,
    },
  };
}

/** A bound; `null`: none. */
export function softCap(fields: Fields, name: string): number {
  return fields.get(name) === undefined ? 0 : fields.number(name);
}
