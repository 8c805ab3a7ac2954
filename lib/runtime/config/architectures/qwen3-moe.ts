import type { Description } from '../description.js';
import { slidingWindow } from '../windows.js';
import type { Architecture } from './architecture.js';
import { EXPERT_FIELDS, expertCounts } from './experts.js';

/** Qwen3 with experts, in all blocks or in some. */
export const QWEN3_MOE: Architecture = {
  modelType: 'qwen3_moe',
  defaults: {
    intermediate_size: 6144,
    max_position_embeddings: 32768,
    moe_intermediate_size: 768,
    num_experts_per_tok: 8,
    num_key_value_heads: 4,
    sliding_window: 4096,
  },
  features: ['decoder_sparse_step', 'mlp_only_layers', ...EXPERT_FIELDS],
  describe(fields, { layers }): Partial<Description> {
    const windowed = fields.flag('use_sliding_window', false);
    const windows = Array<number>(layers).fill(windowed ? slidingWindow(fields) : 0);
    const counts = expertCounts(fields, 128);
    const dense = fields.get('mlp_only_layers') ?? [];
    if (!Array.isArray(dense) || !dense.every((layer) => Number.isSafeInteger(layer)))
      throw fields.wrong('mlp_only_layers', 'to be a list of layers');
    const step = fields.count('decoder_sparse_step', 1);
    const has = (layer: number) => counts.count > 0 && !dense.includes(layer) && (layer + 1) % step === 0;
    const blocks = Array.from({ length: layers }, (_, layer) => has(layer));
    if (!blocks.includes(true)) return { headNorms: 'each', windows };
    const experts = {
      ...counts,
      width: fields.count('moe_intermediate_size'),
      normalized: fields.flag('norm_topk_prob', false),
      blocks,
      names: { module: 'mlp', gate: 'gate_proj', up: 'up_proj', down: 'down_proj' },
    };
    return { headNorms: 'each', windows, experts };
  },
};
