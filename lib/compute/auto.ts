import type { FloatBits, QuantizeArgs } from '../../binding.js';
import type { ResolvedQuantConfig } from '../matrix/config.js';
import { allocate, type DType } from '../matrix/dtype.js';
import { allocateWords, formatNamed } from '../matrix/format.js';
import { allocating } from '../messages/allocating.js';
import { AUTO_VALUES, type AutoOption } from '../solvers/auto.js';
import { groupedQuantizeArgs, readStats } from './arguments.js';

// Options that are `'auto'`: chosen for each matrix, by what comes of them on some of its groups.

/** Weights that values are tried on: enough that the choice is that of the whole, few enough that it costs next to nothing. */
const SAMPLE_WEIGHTS = 128 * 1024;

/** More iterations are taken only where they lower the squared error by more than this part. */
const WORTHWHILE = 5e-4;

/** A grouped matrix, or a part of one. */
interface Grouped {
  readonly weights: FloatBits;
  readonly dtype: DType;
  readonly rows: number;
  readonly cols: number;
  readonly axis: 0 | 1;
}

/** Groups from the first to the last, as far apart as can be, one a row. The same ones whatever computes. */
function sampleOf({ weights, dtype, rows, cols, axis }: Grouped) {
  const [groups, size] = axis === 1 ? [rows, cols] : [cols, rows];
  const count = Math.min(groups, Math.max(1, Math.floor(SAMPLE_WEIGHTS / size)));
  const sample = allocate(dtype, count * size);
  for (let i = 0; i < count; i++) {
    const group = Math.floor((i * groups) / count);
    if (axis === 1) sample.set(weights.subarray(group * size, (group + 1) * size), i * size);
    else for (let k = 0; k < size; k++) sample[i * size + k] = weights[k * cols + group]!;
  }
  return { weights: sample, dtype, rows: count, cols: size };
}

/**
 * Chooses what is `'auto'` in a configuration, one option after the other, each with those before it as chosen and those after it at
 * their defaults: the value with the least squared error of the sample, of `iterations` the fewest that come near it. All inputs count
 * alike. Yields what is to be run, and returns the configuration with numbers.
 */
export function* choosing<C extends ResolvedQuantConfig>(
  config: C,
  matrix: Grouped,
  threads: number,
): Generator<QuantizeArgs, C> {
  const { auto = [], ...rest } = config;
  if (auto.length === 0) return config;
  let chosen = rest as unknown as C;
  const sample = allocating('some groups to try options on', () => sampleOf(matrix));
  const format = formatNamed('8bit_u8')!;
  const buffers = allocating('what options make of some groups', () => ({
    packed: allocateWords(format, sample.rows * sample.cols),
    scale: new Float32Array(sample.rows),
    zero: new Float32Array(sample.rows),
  }));
  for (const name of auto) {
    const tried: { readonly value: number; readonly error: number }[] = [];
    for (const value of AUTO_VALUES[name](config.solver)) {
      const stats = new Float64Array(5);
      const trial = { ...chosen, [name]: value };
      yield groupedQuantizeArgs({
        ...{ ...sample, ...buffers, stats, axis: 1, config: trial, format, metaDtype: 'float32', threads },
      });
      tried.push({ value, error: readStats(stats).squaredError });
    }
    const least = Math.min(...tried.map(({ error }) => error));
    const most = name === 'iterations' ? least * (1 + WORTHWHILE) : least;
    const best = tried.find(({ error }) => error <= most); // none, where weights are no numbers: that is told elsewhere
    chosen = { ...chosen, ...(best && { [name]: best.value }) };
  }
  return Object.freeze({ ...chosen, chosen: auto as readonly AutoOption[] });
}
