import type { Fields } from './fields.js';

/** How rotary embeddings are stretched beyond the length that a model was trained on. */
export type RopeScaling = PlainRope | StretchedRope | Llama3Rope | YarnRope | LongRope;

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

/** Each wave by a factor of its own: in texts that are longer than the model was first trained for by others than in short ones. */
export interface LongRope {
  /** As config.json calls it. */
  readonly type: 'longrope';
  /** Positions that the model was first trained for. */
  readonly trained: number;
  /** For texts of at most `trained` positions, one a pair: `turned / 2`. */
  readonly shortFactors: readonly number[];
  /** For longer texts. */
  readonly longFactors: readonly number[];
  /** Cosines and sines are multiplied by it. */
  readonly attentionFactor: number;
}

/** Rotary embedding of a layer. */
export interface RopeConfig {
  /** Numbers of each head that are turned, the first of it: as a rule all. Even. */
  readonly turned: number;
  /** Base of the wave lengths. */
  readonly theta: number;
  /** How they are stretched. */
  readonly scaling: RopeScaling;
}

/** Whether the angles of a position are not the same in all texts of at most `maxContext` positions. */
export function dependsOnLength({ ropes }: { readonly ropes: readonly RopeConfig[] }, maxContext: number): boolean {
  return ropes.some(({ scaling }) => {
    return (scaling.type === 'dynamic' || scaling.type === 'longrope') && maxContext > scaling.trained;
  });
}

/** What decides how a rope is read. */
export interface RopeReading {
  readonly headDim: number;
  /** Positions that the model was trained for, as config.json says. */
  readonly maxPositions: number;
  /** Whether models of the architecture may turn a part of each head. */
  readonly partial?: boolean;
  /** Types that mean the same as another one. */
  readonly aliases?: Readonly<Record<string, RopeScaling['type']>>;
}

/** `rope_theta` and `rope_scaling`, or `rope_parameters` that newer files have for both. Names and defaults: transformers. */
export function readRope(fields: Fields, reading: RopeReading): RopeConfig {
  const parameters = fields.object('rope_parameters');
  const byLayer = LAYER_TYPES.find((type) => parameters?.get(type) !== undefined);
  if (byLayer) throw parameters!.unsupported(byLayer, 'one rotary embedding for all layers');
  const scaling = parameters ?? fields.object('rope_scaling');
  const theta =
    parameters?.get('rope_theta') === undefined ? fields.number('rope_theta', 10000) : parameters.number('rope_theta');
  const turned = readTurned(fields, scaling, reading);
  return { turned, theta, scaling: scaling ? readScaling(fields, scaling, turned, reading) : { type: 'default' } };
}

/**
 * One rope for layers that see all and one for those with a window: `rope_parameters` by the type of layer, or as older files have it,
 * `rope_theta` and `rope_scaling` for the former and `rope_local_base_freq` for the latter.
 *
 * @param thetas Bases where the file has none.
 */
export function readTwoRopes(
  fields: Fields,
  reading: RopeReading,
  thetas: { readonly full: number; readonly sliding: number },
): { readonly full: RopeConfig; readonly sliding: RopeConfig } {
  const parameters = fields.object('rope_parameters');
  const alike = parameters?.get('rope_type') ?? parameters?.get('rope_theta');
  if (alike !== undefined) throw fields.unsupported('rope_parameters', LAYER_TYPES.join(' and '));
  const turned = reading.headDim;
  const rope = (own: Fields | undefined, theta: number): RopeConfig => {
    return { turned, theta, scaling: own ? readScaling(fields, own, turned, reading) : { type: 'default' } };
  };
  const [full, sliding] = LAYER_TYPES.map((type) => parameters?.object(type));
  return {
    full: rope(
      full ?? fields.object('rope_scaling'),
      full?.get('rope_theta') === undefined ? fields.number('rope_theta', thetas.full) : full.number('rope_theta'),
    ),
    sliding: rope(
      sliding,
      sliding?.get('rope_theta') === undefined
        ? fields.number('rope_local_base_freq', thetas.sliding)
        : sliding.number('rope_theta'),
    ),
  };
}

/** Types of layers that may have ropes of their own. */
const LAYER_TYPES = ['full_attention', 'sliding_attention'] as const;

/** Models that turn only a part of each head say so in config.json, newer ones in `rope_parameters`. */
const PARTIAL = 'partial_rotary_factor';

function readTurned(fields: Fields, scaling: Fields | undefined, { headDim, partial = false }: RopeReading): number {
  for (const where of [...(scaling ? [scaling] : []), fields]) {
    const factor = where.get(PARTIAL) ?? 1;
    if (factor === 1) continue;
    if (!partial) throw where.unsupported(PARTIAL, '1');
    const turned = Math.trunc(headDim * where.number(PARTIAL));
    if (turned < 2 || turned > headDim || turned % 2 !== 0)
      throw where.wrong(PARTIAL, `to leave an even number of the ${headDim} of a head`);
    return turned;
  }
  return headDim;
}

function readScaling(config: Fields, fields: Fields, turned: number, reading: RopeReading): RopeScaling {
  const { maxPositions, aliases = {} } = reading;
  const key = fields.get('rope_type') === undefined ? 'type' : 'rope_type';
  const given = fields.get(key) ?? 'default';
  const type = aliases[String(given)] ?? (given as RopeScaling['type']);
  if (type === 'default') return { type };
  if (type === 'longrope') return readLongRope(config, fields, turned, maxPositions);
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
      throw fields.unsupported(key, 'default, linear, dynamic, llama3, yarn, longrope');
  }
}

/** Of the positions first trained for, what config.json itself says comes before what the rope does, as in transformers. */
function readLongRope(config: Fields, fields: Fields, turned: number, maxPositions: number): LongRope {
  const name = 'original_max_position_embeddings';
  const trained = config.get(name) === undefined ? fields.count(name, maxPositions) : config.count(name);
  const factors = (of: string) => {
    const list = fields.get(of);
    const fits = Array.isArray(list) && list.length === turned / 2;
    if (fits && list.every((factor) => Number.isFinite(factor) && factor > 0)) return list as readonly number[];
    throw fields.wrong(of, `to be ${turned / 2} positive numbers, one for each pair of a head`);
  };
  const factor = fields.number('factor', maxPositions / trained);
  const sharpened = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(trained));
  return {
    ...{ type: 'longrope', trained, shortFactors: factors('short_factor'), longFactors: factors('long_factor') },
    attentionFactor: fields.number('attention_factor', sharpened),
  };
}

/** YaRN makes attention sharper by as much as the interpolation has blurred it. */
function yarnAttention(fields: Fields, factor: number): number {
  const sharpness = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  if (fields.get('attention_factor') !== undefined) return fields.number('attention_factor');
  const [some, all] = [fields.get('mscale'), fields.get('mscale_all_dim')];
  return some && all ? sharpness(fields.number('mscale')) / sharpness(fields.number('mscale_all_dim')) : sharpness(1);
}
