import { readRope } from '../rope-config.js';
import { slidingWindow } from '../windows.js';
import type { Architecture } from './architecture.js';

/** Phi-3: q, k and v are one linear layer, gate and up another; LongRoPE, and heads of which a part is turned (Phi-4-mini). */
export const PHI3: Architecture = {
  modelType: 'phi3',
  defaults: { max_position_embeddings: 4096, original_max_position_embeddings: 4096, rms_norm_eps: 1e-5 },
  describe(fields, sizes) {
    for (const name of ['attention_bias', 'mlp_bias'])
      if (fields.flag(name, false)) throw fields.unsupported(name, 'false');
    // Files of the first Phi-3 call it so, and mean the same.
    const rope = readRope(fields, { ...sizes, partial: true, aliases: { su: 'longrope', yarn: 'longrope' } });
    const { type } = rope.scaling;
    if (type !== 'default' && type !== 'longrope')
      throw fields.unsupported(
        fields.get('rope_parameters') === undefined ? 'rope_scaling' : 'rope_parameters',
        'longrope',
      );
    return { fused: true, ropes: [rope], windows: Array<number>(sizes.layers).fill(slidingWindow(fields)) };
  },
};
