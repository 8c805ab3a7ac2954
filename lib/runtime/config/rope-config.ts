import type { Fields } from './fields.js';

/** How rotary embeddings are stretched beyond the length that a model was trained on. */
export type RopeScaling = PlainRope | StretchedRope | Llama3Rope | YarnRope;

/** Not at all. */
export interface PlainRope {
  /** As config.json calls it. */
  readonly type: 'default';
}

/** All angles alike; `dynamic`: from the length on that the model was trained for, and by as much as a text exceeds it. */
export interface StretchedRope {
  /** As config.json calls it. */
  readonly type: 'linear' | 'dynamic';
  /** How many times longer texts may be. */
  readonly factor: number;
  /** Positions that the model was trained for. */
  readonly trained: number;
}

/** Long waves only. */
export interface Llama3Rope {
  /** As config.json calls it. */
  readonly type: 'llama3';
  /** How many times longer texts may be. */
  readonly factor: number;
  /** Positions that the model was trained for. */
  readonly trained: number;
  /** Waves that fit fewer times than this into `trained` are stretched. */
  readonly lowFactor: number;
  /** Waves that fit more often are left; those between are mixed. */
  readonly highFactor: number;
}

/** Long waves only, with attention made sharper: YaRN. */
export interface YarnRope {
  /** As config.json calls it. */
  readonly type: 'yarn';
  /** How many times longer texts may be. */
  readonly factor: number;
  /** Positions that the model was trained for. */
  readonly trained: number;
  /** Turns within `trained` beyond which waves are left. */
  readonly betaFast: number;
  /** Turns within `trained` below which they are stretched. */
  readonly betaSlow: number;
  /** Whether the bounds between are whole numbers. */
  readonly truncate: boolean;
  /** Cosines and sines are multiplied by it. */
  readonly attentionFactor: number;
}

/** Rotary embedding of a model. */
export interface RopeConfig {
  /** Numbers per head. */
  readonly headDim: number;
  /** Base of the wave lengths. */
  readonly theta: number;
  /** How they are stretched. */
  readonly scaling: RopeScaling;
}

/** `rope_theta` and `rope_scaling`, or `rope_parameters` that newer files have for both. Names and defaults: transformers. */
export function readRope(fields: Fields, headDim: number, maxPositions: number): RopeConfig {
  const parameters = fields.object('rope_parameters');
  const scaling = parameters ?? fields.object('rope_scaling');
  const theta =
    parameters?.get('rope_theta') === undefined ? fields.number('rope_theta', 10000) : parameters.number('rope_theta');
  for (const where of [fields, ...(scaling ? [scaling] : [])]) {
    if ((where.get(PARTIAL) ?? 1) !== 1) throw where.unsupported(PARTIAL, '1');
  }
  const byLayer = ['full_attention', 'sliding_attention'].find((type) => parameters?.get(type) !== undefined);
  if (byLayer) throw parameters!.unsupported(byLayer, 'one rotary embedding for all layers');
  return { headDim, theta, scaling: scaling ? readScaling(scaling, maxPositions) : { type: 'default' } };
}

/** Models that turn only a part of each head say so in config.json, newer ones in `rope_parameters`. */
const PARTIAL = 'partial_rotary_factor';

function readScaling(fields: Fields, maxPositions: number): RopeScaling {
  const key = fields.get('rope_type') === undefined ? 'type' : 'rope_type';
  const type = (fields.get(key) ?? 'default') as RopeScaling['type'];
  if (type === 'default') return { type };
  const trained = fields.count('original_max_position_embeddings', maxPositions);
  switch (type) {
    case 'linear':
    case 'dynamic':
      // Dynamic scaling begins where the model's own positions end, whatever else the file says.
      return { type, factor: fields.number('factor'), trained: maxPositions };
    case 'llama3': {
      const [lowFactor, highFactor] = [fields.number('low_freq_factor'), fields.number('high_freq_factor')];
      if (highFactor <= lowFactor) throw fields.wrong('high_freq_factor', `to exceed low_freq_factor ${lowFactor}`);
      return { type, factor: fields.number('factor'), trained, lowFactor, highFactor };
    }
    case 'yarn': {
      const factor = fields.number('factor');
      return {
        type,
        factor,
        trained,
        betaFast: fields.number('beta_fast', 32),
        betaSlow: fields.number('beta_slow', 1),
        truncate: fields.flag('truncate', true),
        attentionFactor: yarnAttention(fields, factor),
      };
    }
    default:
      throw fields.unsupported(key, 'default, linear, dynamic, llama3, yarn');
  }
}

/** YaRN makes attention sharper by as much as the interpolation has blurred it. */
function yarnAttention(fields: Fields, factor: number): number {
  const sharpness = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  if (fields.get('attention_factor') !== undefined) return fields.number('attention_factor');
  const [some, all] = [fields.get('mscale'), fields.get('mscale_all_dim')];
  return some && all ? sharpness(fields.number('mscale')) / sharpness(fields.number('mscale_all_dim')) : sharpness(1);
}
