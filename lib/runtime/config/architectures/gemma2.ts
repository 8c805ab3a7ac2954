import { readWindows, slidingWindow } from '../windows.js';
import type { Architecture } from './architecture.js';
import { describeGemma, GEMMA_DEFAULTS, softCap } from './gemma.js';

/** Gemma 2: soft caps, and every other layer with a window. */
export const GEMMA2: Architecture = {
  modelType: 'gemma2',
  activation: 'hidden_activation',
  defaults: {
    ...GEMMA_DEFAULTS,
    attn_logit_softcapping: 50,
    final_logit_softcapping: 30,
    max_position_embeddings: 8192,
  },
  features: [
    'attn_logit_softcapping',
    'final_logit_softcapping',
    'query_pre_attn_scalar',
    'use_bidirectional_attention',
  ],
  describe: (fields, sizes) => ({
    ...describeGemma(fields, sizes),
    softCaps: {
      attention: softCap(fields, 'attn_logit_softcapping'),
      logits: softCap(fields, 'final_logit_softcapping'),
    },
    windows: readWindows(fields, sizes.layers, (_, layer) => (layer % 2 === 0 ? slidingWindow(fields) : 0)),
  }),
};
