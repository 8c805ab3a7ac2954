import { scalesOfSet } from '../../matrix/metadata.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import { type HqqForm, type HqqLayer, isOptimized } from './state-dict.js';

// What config.json says of the layers, for Python.

/**
 * Modules that Python must not expect to be quantized: the head, and all that are, or may be, linear layers. transformers
 * 4.50 to 4.57 look for an entry anywhere in a module's name, as text.
 */
export function skipModules(quantized: readonly string[], names: readonly string[]): readonly string[] {
  const text = `\n${quantized.join('\n')}\n`;
  // Encoders have `lm_head.dense` and no layer called `lm_head`: that entry is then only in the way.
  const head = names.includes('lm_head') || !text.includes('lm_head') ? ['lm_head'] : [];
  const skip = [...new Set([...head, ...names])];
  for (const entry of skip) {
    const at = text.indexOf(entry);
    if (at < 0) continue;
    const hit = text.slice(text.lastIndexOf('\n', at) + 1, text.indexOf('\n', at));
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected names that Python tells apart: ${quote(entry)} would stay as it is and ${quote(hit)} be quantized, but ` +
        'transformers 4.50 to 4.57 would take the first name, as part of the second, to mean both. ' +
        'Exclude both or quantize both.',
    );
  }
  return skip;
}

/** How scales and zeros are quantized themselves. */
const BYTES = { axis: 0, nbits: 8, optimize: false };

/** What transformers writes, with the truth for most layers: it reads the rest from each layer's keys, vLLM only this. */
export function quantizationConfig(layers: readonly HqqLayer[], skip: readonly string[]): unknown {
  const counts = new Map<string, { count: number } & Pick<HqqForm, 'config' | 'geometry'>>();
  for (const {
    form: { config, geometry },
  } of layers) {
    const key = [
      config.nbits,
      config.groupSize,
      config.axis,
      isOptimized(config),
      config.roundZero,
      config.metaBits,
    ].join();
    const row = counts.get(key) ?? { count: 0, config, geometry };
    row.count++;
    counts.set(key, row);
  }
  const { config, geometry } = [...counts.values()].reduce((most, row) => (row.count > most.count ? row : most));
  const bytes = config.metaBits === 8;
  return {
    quant_config: {
      offload_meta: false,
      scale_quant_params: bytes ? { ...BYTES, channel_wise: true, group_size: scalesOfSet(geometry.groups) } : null,
      weight_quant_params: {
        axis: config.axis,
        channel_wise: true,
        group_size: config.groupSize,
        nbits: config.nbits,
        optimize: isOptimized(config),
        round_zero: config.roundZero,
        view_as_float: false,
      },
      zero_quant_params: bytes ? { ...BYTES, channel_wise: false, group_size: null } : null,
    },
    quant_method: 'hqq',
    skip_modules: skip,
  };
}
