import { slidingWindow } from '../windows.js';
import type { Architecture } from './architecture.js';
import { EXPERT_FIELDS, expertCounts } from './experts.js';

/** Mixtral: experts in every block. */
export const MIXTRAL: Architecture = {
  modelType: 'mixtral',
  defaults: {
    max_position_embeddings: 131072,
    num_experts_per_tok: 2,
    num_key_value_heads: 8,
    rms_norm_eps: 1e-5,
    rope_theta: 1e6,
  },
  features: EXPERT_FIELDS,
  describe(fields, { layers }) {
    if (fields.flag('attention_bias', false)) throw fields.unsupported('attention_bias', 'false');
    const counts = expertCounts(fields, 8);
    if (counts.count === 0) throw fields.wrong('num_local_experts', 'to be at least 1');
    return {
      windows: Array<number>(layers).fill(slidingWindow(fields)),
      experts: {
        ...counts,
        width: fields.count('intermediate_size'),
        normalized: true,
        blocks: Array<boolean>(layers).fill(true),
        names: { module: 'block_sparse_moe', gate: 'w1', up: 'w3', down: 'w2' },
      },
    };
  },
};
