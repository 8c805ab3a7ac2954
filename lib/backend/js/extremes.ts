import type { ExtremesArgs } from '../../../binding.js';
import { widen } from './lanes.js';
import type { Units } from './slices.js';

/** Weights after which the event loop may have its turn. */
const TURN_WEIGHTS = 65_536;

/** The twin of native/kernels/extremes.h. */
export function* extremes({ weights, dtype, rows, cols, axis, least, most }: ExtremesArgs): Units {
  const floats = new Float32Array(cols);
  const pause = Math.max(1, Math.floor(TURN_WEIGHTS / cols));
  if (axis === 0) {
    least.fill(Infinity);
    most.fill(-Infinity);
  }
  for (let row = 0; row < rows; row++) {
    widen(weights, dtype, row * cols, cols, floats);
    if (axis === 0) {
      for (let c = 0; c < cols; c++) {
        const weight = floats[c]! + 0; // -0 becomes +0
        if (weight < least[c]!) least[c] = weight;
        if (weight > most[c]!) most[c] = weight;
      }
    } else {
      let [low, high] = [floats[0]!, floats[0]!];
      for (let c = 1; c < cols; c++) {
        const weight = floats[c]!;
        if (weight < low) low = weight;
        if (weight > high) high = weight;
      }
      least[row] = low + 0;
      most[row] = high + 0;
    }
    if ((row + 1) % pause === 0) yield;
  }
}
