import { readTwoRopes } from '../rope-config.js';
import { readWindows, slidingWindow } from '../windows.js';
import type { Architecture } from './architecture.js';
import { describeGemma, GEMMA_DEFAULTS, softCap } from './gemma.js';

/** Gemma 3, of text: five layers of six with a window and a rope of their own; norms of queries and keys, head by head. */
export const GEMMA3: Architecture = {
  modelType: 'gemma3_text',
  activation: 'hidden_activation',
  defaults: { ...GEMMA_DEFAULTS, max_position_embeddings: 131072 },
  // Of attn_logit_softcapping transformers' class makes nothing.
  features: ['final_logit_softcapping', 'query_pre_attn_scalar', 'rope_local_base_freq', 'use_bidirectional_attention'],
  describe(fields, sizes) {
    const every = fields.count('sliding_window_pattern', 6);
    const { full, sliding } = readTwoRopes(fields, sizes, { full: 1e6, sliding: 1e4 });
    const windows = readWindows(fields, sizes.layers, (_, layer) => ((layer + 1) % every ? slidingWindow(fields) : 0));
    return {
      ...describeGemma(fields, sizes),
      headNorms: 'each',
      softCaps: { attention: 0, logits: softCap(fields, 'final_logit_softcapping') },
      windows,
      ropes: [full, sliding],
      ropeOf: windows.map((window) => (window > 0 ? 1 : 0)),
    };
  },
};
