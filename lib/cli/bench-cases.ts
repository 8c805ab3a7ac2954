import type { Backend, Operations } from '../../binding.js';
import { resolveQuantConfig } from '../config.js';
import { allocateWords, formatFor, packedRows } from '../format.js';
import { geometryOf } from '../geometry.js';
import { groupedDequantizeArgs, groupedQuantizeArgs, packArgs, readStats } from '../grouped.js';
import { runTask } from '../run.js';

/** Repeats of one measurement: at least, at most, and for how long. */
const LEAST_RUNS = 3;
const MOST_RUNS = 15;
const SECONDS_PER_ROW = 1;

export interface Memcpy {
  readonly weights: number;
  /** Median. */
  readonly seconds: number;
}

/** One measured operation. */
export interface BenchRow {
  readonly operation: string;
  readonly isa: string;
  readonly threads: number;
  /** Side of the square matrix. */
  readonly size: number;
  readonly weights: number;
  /** Median of the repeats. */
  readonly seconds: number;
  readonly runs: number;
}

/** Weights as trained ones are distributed, near enough: sums of a few uniform numbers. The same in every run. */
function weightsLike(length: number): Float32Array {
  const weights = new Float32Array(length);
  let state = 0x9e3779b9;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 32; // in [-0.5, 0.5)
  };
  for (let i = 0; i < length; i++) weights[i] = (next() + next() + next() + next()) * 0.05;
  return weights;
}

/** Everything that the operations read and write, for one matrix. */
function buffers(size: number) {
  const config = resolveQuantConfig();
  const format = formatFor(config.nbits);
  const { rows, cols, groups } = geometryOf([size, size], config);
  const weights = weightsLike(size * size);
  const packed = allocateWords(format, packedRows(format, rows) * cols);
  const [scale, zero] = [new Float32Array(groups), new Float32Array(groups)];
  const [codes, out] = [new Uint8Array(size * size), new Float32Array(size * size)];
  return { config, format, rows, cols, weights, packed, scale, zero, stats: new Float64Array(5), codes, out };
}

type Buffers = ReturnType<typeof buffers>;

/** One operation to measure. `check` reads what was written, so that a backend that does nothing is not the fastest. */
interface BenchCase<K extends keyof Operations> {
  readonly operation: K;
  readonly args: (buffers: Buffers, threads: number) => Operations[K];
  readonly check: (buffers: Buffers) => boolean;
}

const someCodes = ({ codes }: Buffers) => codes.some((code) => code > 0 && code < 15);

/**
 * In an order in which each reads what one before it wrote. Multiplication gets its rows here when the backends have it: an
 * operation, its arguments, and what to read of the result.
 */
const CASES = [
  {
    operation: 'quantize',
    args: (b, threads) => groupedQuantizeArgs({ ...b, dtype: 'float32', axis: b.config.axis, metaDtype: 'float32', threads }),
    check: ({ stats }) => readStats(stats).badIndex === -1 && readStats(stats).squaredError > 0,
  } satisfies BenchCase<'quantize'>,
  {
    operation: 'unpack',
    args: (b, threads) => packArgs({ ...b, threads }),
    check: someCodes,
  } satisfies BenchCase<'unpack'>,
  {
    operation: 'pack',
    args: (b, threads) => packArgs({ ...b, threads }),
    check: ({ packed }) => packed.some((word) => word !== 0),
  } satisfies BenchCase<'pack'>,
  {
    operation: 'dequantize',
    args: (b, threads) => groupedDequantizeArgs({ ...b, dtype: 'float32', axis: b.config.axis, rounding: 'once', threads }),
    check: ({ out, weights }) => out.every((w, i) => Math.abs(w - weights[i]!) < 0.1),
  } satisfies BenchCase<'dequantize'>,
] as const;

/** Copies a float32 matrix of `size` x `size` on one thread. */
export function measureMemcpy(size: number): Memcpy {
  const from = weightsLike(size * size);
  const to = new Float32Array(from.length);
  const times: number[] = [];
  to.set(from); // the pages are there from now on
  for (let i = 0; i < MOST_RUNS; i++) {
    const started = performance.now();
    to.set(from);
    times.push((performance.now() - started) / 1000);
  }
  if (to.at(-1) !== from.at(-1)) throw new Error('memcpy did not copy');
  return { weights: from.length, seconds: median(times) };
}

/** Measures every operation on a matrix of `size` x `size`, with each number of threads. */
export async function measureBackend(
  backend: Backend,
  size: number,
  threadCounts: readonly number[],
  signal: AbortSignal,
): Promise<BenchRow[]> {
  const shared = buffers(size);
  const rows: BenchRow[] = [];
  for (const { operation, args, check } of CASES) {
    for (const threads of threadCounts) {
      const times = await repeat(() => runTask(backend, operation, args(shared, threads) as never, { signal }));
      if (!check(shared)) throw new Error(`${operation} on ${backend.isa} wrote nothing of use`);
      rows.push({ operation, isa: backend.isa, threads, size, weights: size * size, seconds: median(times), runs: times.length });
    }
  }
  return rows;
}

/** Times of `run` after one that warms up. */
async function repeat(run: () => Promise<void>): Promise<number[]> {
  await run();
  const times: number[] = [];
  const began = performance.now();
  while (times.length < LEAST_RUNS || (times.length < MOST_RUNS && performance.now() - began < SECONDS_PER_ROW * 1000)) {
    const started = performance.now();
    await run();
    times.push((performance.now() - started) / 1000);
  }
  return times;
}

function median(times: readonly number[]): number {
  const sorted = [...times].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}
