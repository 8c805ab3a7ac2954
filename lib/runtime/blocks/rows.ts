import { allocating } from '../../messages/allocating.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import type { RopeRows } from './rope.js';

/**
 * Positions of texts on their way through the blocks of a model. Steps point to these arrays, which are filled before a run:
 * the same steps serve any positions.
 */
export interface Rows {
  /** How many positions. */
  readonly count: number;
  /** `[count]`: where each is in its text. */
  readonly positions: Int32Array;
  /** Their rotary embeddings, one for each of the model's. */
  readonly ropes: readonly RopeRows[];
  /** `[count, hiddenSize]`: what flows from block to block. */
  readonly hidden: Float32Array;
}

/** Rows of arrays of their own, to be filled again and again. */
export function makeRows({ hiddenSize, ropes }: LanguageModelConfig, count: number): Rows {
  const floats = (width: number) => allocating('the activations', () => new Float32Array(count * width));
  return {
    count,
    positions: new Int32Array(count),
    ropes: ropes.map(({ turned }) => ({ cos: floats(turned / 2), sin: floats(turned / 2) })),
    hidden: floats(hiddenSize),
  };
}

/** Positions `start` to `start + count - 1`. */
export function positionsFrom(start: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, row) => start + row);
}
