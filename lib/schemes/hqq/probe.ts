import { floatOfHalf, halfOfFloat } from '../../backend/js/lanes.js';
import { bitsOf } from '../../compute/floats.js';
import { countOf } from '../../containers/range.js';
import { Scratch } from '../../containers/scratch.js';
import { numbersOf } from '../../containers/stored-types.js';
import { highestCode, type ResolvedQuantConfig } from '../../matrix/config.js';
import { DTYPES } from '../../matrix/dtype.js';
import { solverNamed } from '../../solvers/solvers.js';
import type { GroupedChunk } from '../chunks.js';
import type { Probe } from '../scheme.js';
import { solveChunk } from './encode.js';
import { HALF_OVERFLOW, LARGEST_ZERO, SMALLEST_SCALE, toHalf, worse } from './half.js';
import type { HqqForm } from './state-dict.js';

/** What rounding may add to a quotient of a few operations, with room to spare. */
const SLACK = 1.001;

/** Ranges up to here are one level with the reference's guards. */
const REFERENCE_LEVEL = 1e-4;

/**
 * Whether float16 holds the scales and zeros of a layer, told from its weights before anything is written. A group's least and
 * greatest weights tell it for nearly all: see `areCertain`. A chunk with a group for which they do not is quantized, and its
 * scales and zeros looked at: so the answer is always that of what will be stored.
 */
export const probe: Probe<HqqForm, GroupedChunk> = {
  needed: ({ settled, metaDtype }) => !settled && metaDtype === 'float16',

  async weights(layer, chunk, bytes, run) {
    const { site, form } = layer;
    const { axis } = form.config;
    const { rows, cols } = chunk;
    const { slot } = run;
    const dtype = numbersOf(site.weight.type)!;
    const groups = countOf(chunk.groups);
    const least = slot.take('scale', Float32Array, groups);
    const most = slot.take('zero', Float32Array, groups);
    const weights = bitsOf(bytes, dtype);
    // One thread looks through weights as fast as several read them.
    await run.compute('extremes', { weights, dtype: DTYPES[dtype].id, rows, cols, axis, least, most, threads: 1 });
    const part = sureScale(form.config, axis === 1 ? cols : rows, run.importance !== undefined);
    if (part > 0 && areCertain(least, most, highestCode(form.config.nbits), part)) return form;
    const { scale, zero } = await solveChunk(layer, chunk, bytes, run);
    const half = slot.take('half scale', Uint16Array, groups);
    const fit = worse(toHalf(scale, 'scale', half), toHalf(zero, 'zero', half, scale));
    return fit === 'holds' ? form : { ...form, metaDtype: 'float32' };
  },

  scales(form, { scale, zero }) {
    const half = new Uint16Array(scale.length);
    const fit = worse(toHalf(scale, 'scale', half), toHalf(zero, 'zero', half, scale));
    return fit === 'holds' || [scale, zero].every(isHalf) ? form : { ...form, metaDtype: 'float32' };
  },

  bias(form, values) {
    const fit = toHalf(values, 'bias', new Scratch().take('half', Uint16Array, values.length));
    return fit === 'holds' ? form : { ...form, metaDtype: 'float32' };
  },
};

/** Whether values are of float16 already. */
const isHalf = (values: Float32Array): boolean => values.every((value) => floatOfHalf(halfOfFloat(value)) === value);

/** What part of its range's scale the scale of each group surely is at least; 0: its least and greatest weight do not tell. */
function sureScale(config: ResolvedQuantConfig, size: number, weighted: boolean): number {
  const { keepsScale, leastScale } = solverNamed(config.solver);
  if (config.zeroPoint !== 'float' || config.scaleDtype === 'bfloat16') return 0;
  if (keepsScale) return 1;
  if (weighted) return 0; // a scale may suit a few weights that count, however wide the range of the others
  return (leastScale?.({ ...config, maxCode: highestCode(config.nbits) }, size) ?? 0) / SLACK;
}

/**
 * Whether float16 holds scale and zero of each group for certain, however the solver goes. `part` of its range's scale is what the
 * scale of a group surely has: 1 of solvers that keep it.
 *
 * With `s = maxCode / (most - least)`, scale is `1 / s`, and zero begins at `-least * s`. An update makes zero the mean of
 * `code - t * s`, `t` between the weight and what its code stands for: so it lies between the zero before and the least and
 * greatest of `code - w * s`, within `[-most * s, maxCode - least * s]`. So `|zero| <= maxCode + magnitude * s` throughout.
 * The guards of the solver change `s` only where ranges are smaller, or magnitudes larger, than what is certain here. A scale
 * of 1 may stand for a group of equal weights, whose zero must be as precise as they are.
 *
 * A solver that moves the scale takes the mean of codes for the zero, less that of the weights in levels: with a scale of at least
 * `part / s`, `|zero| <= maxCode + magnitude * s / part`. No scale is more than the range, most of a float16 is more than twice it.
 */
function areCertain(least: Float32Array, most: Float32Array, maxCode: number, part: number): boolean {
  const smallest = SLACK * Math.max((maxCode * SMALLEST_SCALE) / part, REFERENCE_LEVEL);
  const largest = HALF_OVERFLOW / 2 / SLACK;
  const levels = ((LARGEST_ZERO - maxCode) / maxCode / SLACK) * part;
  const [unitFrom, unitTo] = [maxCode / SLACK, maxCode * SLACK];
  for (let i = 0; i < least.length; i++) {
    const low = least[i]!;
    const high = most[i]!;
    const range = high - low;
    // There are millions of groups: comparisons that nearly always hold, which are false for NaN.
    const ordinary = range >= smallest && -low <= largest && high <= largest;
    const near = -low <= levels * range && high <= levels * range;
    if (ordinary && near && (range < unitFrom || range > unitTo)) continue;
    if (low !== 0 || high !== 0) return false; // a group of zeros has scale 1 and zero 0
  }
  return true;
}
