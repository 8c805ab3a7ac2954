import type { RopeConfig } from '../config/rope-config.js';

/** Cosines and sines of the rows of one call: `[rows, turned / 2]` each. */
export interface RopeRows {
  /** Of the angle of each pair. */
  readonly cos: Float32Array;
  /** Of the same angles. */
  readonly sin: Float32Array;
}

const EMPTY: RopeRows = { cos: new Float32Array(0), sin: new Float32Array(0) };

/** Rotary embedding: what angle each pair of a head turns by at each position. Computed in float64, kept in float32. */
export class Rope {
  readonly #config: RopeConfig;
  readonly #half: number;
  /** Of short texts, and of those that are longer than `trained`, where that makes a difference. */
  readonly #tables = [EMPTY, EMPTY];

  constructor(config: RopeConfig) {
    this.#config = config;
    this.#half = config.turned / 2;
  }

  /**
   * The rows of positions `start` to `start + rows - 1` of a text of `length` positions: `dynamic` and `longrope` scaling turn all rows
   * that are read together as far as the last of them demands, however they are cut into jobs.
   */
  rows(start: number, rows: number, length = start + rows): RopeRows {
    const { scaling } = this.#config;
    const end = start + rows;
    if (scaling.type === 'dynamic' && length > scaling.trained) {
      // Angles depend on the length so far, which differs from call to call: nothing to keep.
      const cos = new Float32Array(rows * this.#half);
      const sin = new Float32Array(rows * this.#half);
      fill(this.#config, frequencies(this.#config, length), start, cos, sin);
      return { cos, sin };
    }
    const which = scaling.type === 'longrope' && length > scaling.trained ? 1 : 0;
    if (end * this.#half > this.#tables[which]!.cos.length) this.#tables[which] = this.#make(end, length);
    const { cos, sin } = this.#tables[which]!;
    const [from, to] = [start * this.#half, end * this.#half];
    return { cos: cos.subarray(from, to), sin: sin.subarray(from, to) };
  }

  /** Tables twice as long as needed, so that a text that grows by tokens computes few of them. */
  #make(end: number, length: number): RopeRows {
    const positions = 2 ** Math.ceil(Math.log2(Math.max(end, 128)));
    const cos = new Float32Array(positions * this.#half);
    const sin = new Float32Array(positions * this.#half);
    fill(this.#config, frequencies(this.#config, length), 0, cos, sin);
    return { cos, sin };
  }
}

function fill({ scaling }: RopeConfig, turns: Float64Array, start: number, cos: Float32Array, sin: Float32Array): void {
  const gain = 'attentionFactor' in scaling ? scaling.attentionFactor : 1;
  for (let i = 0; i < cos.length; i++) {
    const angle = (start + Math.floor(i / turns.length)) * turns[i % turns.length]!;
    cos[i] = Math.cos(angle) * gain;
    sin[i] = Math.sin(angle) * gain;
  }
}

/**
 * Radians per position, for each pair of a head, in a text of `length` positions. Formulas: transformers
 * `modeling_rope_utils.py`.
 */
export function frequencies({ turned, theta, scaling }: RopeConfig, length: number): Float64Array {
  const half = turned / 2;
  const plain = (base: number) => Float64Array.from({ length: half }, (_, i) => base ** (-i / half));
  switch (scaling.type) {
    case 'default':
      return plain(theta);
    case 'linear':
      return plain(theta).map((turn) => turn / scaling.factor);
    case 'dynamic': {
      const { factor, trained } = scaling;
      if (length <= trained) return plain(theta);
      return plain(theta * ((factor * length) / trained - (factor - 1)) ** (turned / (turned - 2)));
    }
    case 'longrope': {
      const factors = length > scaling.trained ? scaling.longFactors : scaling.shortFactors;
      return plain(theta).map((turn, i) => turn / factors[i]!);
    }
    case 'llama3': {
      const { factor, trained, lowFactor, highFactor } = scaling;
      // How many times a pair turns within the trained length decides: many times, it stays; seldom, it is interpolated.
      return plain(theta).map((turn) => {
        const turnsWithin = (trained * turn) / (2 * Math.PI);
        const keep = Math.min(1, Math.max(0, (turnsWithin - lowFactor) / (highFactor - lowFactor)));
        return keep * turn + ((1 - keep) * turn) / factor;
      });
    }
    case 'yarn': {
      const { factor, trained, betaFast, betaSlow, truncate } = scaling;
      const pairThatTurns = (times: number) =>
        (turned * Math.log(trained / (times * 2 * Math.PI))) / (2 * Math.log(theta));
      const [fast, slow] = [pairThatTurns(betaFast), pairThatTurns(betaSlow)];
      const first = Math.max(0, truncate ? Math.floor(fast) : fast);
      const last = Math.min(turned - 1, truncate ? Math.ceil(slow) : slow);
      const width = first === last ? 0.001 : last - first;
      return plain(theta).map((turn, i) => {
        const interpolated = Math.min(1, Math.max(0, (i - first) / width));
        return (1 - interpolated) * turn + (interpolated * turn) / factor;
      });
    }
  }
}
