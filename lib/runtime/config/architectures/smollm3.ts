import { readWindows, slidingWindow } from '../windows.js';
import type { Architecture } from './architecture.js';

/** SmolLM3: some layers turn nothing. */
export const SMOLLM3: Architecture = {
  modelType: 'smollm3',
  defaults: {
    max_position_embeddings: 32768,
    num_key_value_heads: 4,
    rope_theta: 2e6,
    tie_word_embeddings: true,
  },
  features: ['no_rope_layers'],
  describe(fields, { layers }) {
    const turns = readTurns();
    const ropeOf = turns.map((turn) => (turn ? 0 : undefined));
    const windowed = fields.flag('use_sliding_window', false);
    const windows = readWindows(fields, layers, (_, layer) => (windowed && !turns[layer] ? slidingWindow(fields) : 0));
    return { ropeOf, windows };

    /** 1: it turns, 0: it does not. */
    function readTurns(): readonly boolean[] {
      const list = fields.get('no_rope_layers');
      if (list === undefined) {
        const interval = fields.count('no_rope_layer_interval', 4);
        return Array.from({ length: layers }, (_, layer) => (layer + 1) % interval !== 0);
      }
      const fits = Array.isArray(list) && list.length >= layers && list.every((turn) => turn === 0 || turn === 1);
      if (!fits) throw fields.wrong('no_rope_layers', `to have a 0 or a 1 for each of ${layers} layers`);
      return list.slice(0, layers).map((turn) => turn === 1);
    }
  },
};
