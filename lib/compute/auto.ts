import type { FloatBits, ImportanceArgs, QuantizeArgs } from '../../binding.js';
import { widen } from '../backend/js/lanes.js';
import type { ResolvedQuantConfig } from '../matrix/config.js';
import { allocate, DTYPES, type DType } from '../matrix/dtype.js';
import { allocateWords, formatNamed } from '../matrix/format.js';
import { allocating } from '../messages/allocating.js';
import { AUTO_VALUES, type AutoOption } from '../solvers/auto.js';
import { groupedQuantizeArgs, readStats } from './arguments.js';
import type { Sample } from './sample.js';

// Options that are `'auto'`: chosen for each matrix, by what comes of them on some of its groups.

/** More iterations are taken only where they lower the squared error by more than this part. */
const WORTHWHILE = 5e-4;

/** Some groups of a matrix. */
interface Trial {
  readonly sample: Sample;
  /** The sample's. */
  readonly weights: FloatBits;
  readonly dtype: DType;
  readonly axis: 0 | 1;
  /** The sample's; absent: all inputs count alike. */
  readonly importance?: ImportanceArgs | undefined;
  readonly threads: number;
}

/** A sample's weights, copied out of the matrix. */
export function takeSample(sample: Sample, matrix: FloatBits, dtype: DType): FloatBits {
  const taken = allocate(dtype, sample.rows * sample.cols);
  let at = 0;
  for (const range of sample.weights) {
    taken.set(matrix.subarray(range.at, range.at + range.count), at);
    at += range.count;
  }
  return taken;
}

/**
 * Chooses what is `'auto'` in a configuration, one option after the other, each with those before it as chosen and those after it at
 * their defaults: the value with the least squared error of the sample, of `iterations` the fewest that come near it. Errors are
 * weighed by importance, if there is any. Yields what is to be run, and returns the configuration with numbers.
 */
export function* choosing<C extends ResolvedQuantConfig>(config: C, trial: Trial): Generator<QuantizeArgs, C> {
  const { auto = [], ...rest } = config;
  if (auto.length === 0) return config;
  let chosen = rest as unknown as C;
  const { sample, dtype, axis, weights, importance, threads } = trial;
  const { rows, cols } = sample;
  const format = formatNamed('8bit_u8')!;
  const groups = axis === 1 ? rows : cols;
  const buffers = allocating('what options make of some groups', () => ({
    packed: allocateWords(format, rows * cols),
    scale: new Float32Array(groups),
    zero: new Float32Array(groups),
  }));
  const wide = importance && allocating('some groups to try options on', () => widened(weights, dtype));
  for (const name of auto) {
    const tried: { readonly value: number; readonly error: number }[] = [];
    for (const value of AUTO_VALUES[name](config.solver)) {
      const stats = new Float64Array(5);
      const args = groupedQuantizeArgs({
        ...{ ...buffers, rows, cols, weights, dtype, axis, stats, format, threads, importance },
        ...{ config: { ...chosen, [name]: value }, metaDtype: 'float32' },
      });
      yield args;
      tried.push({ value, error: wide ? weighedError(args, wide) : readStats(stats).squaredError });
    }
    const least = Math.min(...tried.map(({ error }) => error));
    const most = name === 'iterations' ? least * (1 + WORTHWHILE) : least;
    const best = tried.find(({ error }) => error <= most); // none, where weights are no numbers: that is told elsewhere
    chosen = { ...chosen, ...(best && { [name]: best.value }) };
  }
  return Object.freeze({ ...chosen, chosen: auto as readonly AutoOption[] });
}

function widened(weights: FloatBits, dtype: DType): Float32Array {
  const wide = new Float32Array(weights.length);
  widen(weights, DTYPES[dtype].id, 0, weights.length, wide);
  return wide;
}

/** The sum of `h (w - (code - zero) * scale)^2`, which backends do not report. Codes are a byte each. */
function weighedError({ packed, scale, zero, rows, cols, axis, importance }: QuantizeArgs, weights: Float32Array) {
  const { values, starts, stride } = importance!;
  const [size, next, apart] = axis === 1 ? [cols, 1, cols] : [rows, cols, 1];
  let sum = 0;
  for (let group = 0; group < scale.length; group++) {
    for (let i = 0, input = starts[group]!; i < size; i++, input = (input + stride) % values.length) {
      const at = group * apart + i * next;
      sum += values[input]! * (weights[at]! - (packed[at]! - zero[group]!) * scale[group]!) ** 2;
    }
  }
  return sum;
}
