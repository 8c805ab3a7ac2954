import type { Architecture } from './architecture.js';

/** OLMo 2: norms of what attention and the MLP give, not of what goes into them; norms of all heads of queries, and of keys, together. */
export const OLMO2: Architecture = {
  modelType: 'olmo2',
  defaults: { rms_norm_eps: 1e-5 },
  describe: () => ({
    headNorms: 'together',
    norms: { afterAttention: 'post_attention_layernorm', afterMlp: 'post_feedforward_layernorm' },
  }),
};
