import type { Architecture } from './architecture.js';

/** Granite: multipliers of embeddings, scores, residuals and logits. */
export const GRANITE: Architecture = {
  modelType: 'granite',
  features: ['attention_multiplier', 'embedding_multiplier', 'logits_scaling', 'residual_multiplier'],
  describe: (fields) => ({
    multipliers: {
      embedding: fields.number('embedding_multiplier', 1),
      attention: fields.number('attention_multiplier', 1),
      residual: fields.number('residual_multiplier', 1),
      logits: 1 / fields.number('logits_scaling', 1),
    },
  }),
};
