import type { Backend, Operations } from '../../../binding.js';
import { groupedDequantizeArgs, groupedQuantizeArgs, packArgs, readStats } from '../../compute/arguments.js';
import { layOutArgs } from '../../compute/panels.js';
import { runTask } from '../../compute/run.js';
import { allocateWords, formatFor, packedRows } from '../../matrix/format.js';
import { geometryOf } from '../../matrix/geometry.js';
import { resolveQuantConfig } from '../../matrix/options.js';

/** Repeats of one measurement: at least, at most, and for how long. */
const LEAST_RUNS = 3;
const MOST_RUNS = 15;
const SECONDS_PER_ROW = 0.5;

export interface Memcpy {
  readonly weights: number;
  /** Median. */
  readonly seconds: number;
}

/** Rows of x that products are measured with: one token at a time, and a prompt or many users at once. */
export const BATCHES = [1, 64] as const;

/** What a product multiplies its weights with. */
interface Product {
  /** Rows of x. */
  readonly batch: (typeof BATCHES)[number];
  readonly activations: 'float32' | 'int8';
}

/** One measured operation. */
export interface BenchRow {
  /** As the seam names it; products of layers are `linear`. */
  readonly operation: string;
  /** Of products alone. */
  readonly product: Product | undefined;
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
  const { nbits, axis } = config;
  const stats = { meanAbsError: NaN, meanSquaredError: NaN, relativeError: NaN, iterations: NaN };
  const [groupSize, shape, packing] = [config.groupSize!, [size, size] as const, format.packing];
  const layer = layOutArgs({ nbits, groupSize, axis, shape, packing, packed, scale, zero, stats })!;
  const most = size * Math.max(...BATCHES);
  const [x, y] = [weightsLike(most), new Float32Array(most)];
  return {
    config,
    format,
    rows,
    cols,
    weights,
    packed,
    scale,
    zero,
    stats: new Float64Array(5),
    codes,
    out,
    size,
    layer,
    x,
    y,
  };
}

type Buffers = ReturnType<typeof buffers>;

/** One operation to measure. `check` reads what was written, so that a backend that does nothing is not the fastest. */
interface BenchCase<K extends keyof Operations> {
  readonly operation: K;
  readonly product?: Product;
  readonly args: (buffers: Buffers, threads: number) => Operations[K];
  readonly check: (buffers: Buffers) => boolean;
}

const someCodes = ({ codes }: Buffers) => codes.some((code) => code > 0 && code < 15);

const NO_BIAS = new Float32Array(0);

function product(batch: Product['batch'], activations: Product['activations']) {
  return {
    operation: 'linear',
    product: { batch, activations },
    args: ({ size, layer: { panels }, x, y }, threads) => ({
      layers: [{ ...panels, bias: NO_BIAS, out: y.subarray(0, batch * size) }],
      x: x.subarray(0, batch * size),
      int8: activations === 'int8',
      threads,
    }),
    check: (b) => [0, batch * b.size - 1].every((index) => isProduct(b, index)),
  } satisfies BenchCase<'linear'>;
}

/** Whether a result is the product of what `dequantize` wrote, as near as int8 activations come: 1/254 of a group's largest x. */
function isProduct({ size, x, y, out }: Buffers, index: number): boolean {
  const [row, output] = [Math.floor(index / size) * size, (index % size) * size];
  let [exact, terms] = [0, 0];
  for (let i = 0; i < size; i++) {
    const term = out[output + i]! * x[row + i]!;
    exact += term;
    terms += Math.abs(term);
  }
  return Math.abs(y[index]! - exact) <= 0.02 * terms;
}

/** In an order in which each reads what one before it wrote. */
export const CASES = [
  {
    operation: 'quantize',
    args: (b, threads) =>
      groupedQuantizeArgs({ ...b, dtype: 'float32', axis: b.config.axis, metaDtype: 'float32', threads }),
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
    args: (b, threads) =>
      groupedDequantizeArgs({ ...b, dtype: 'float32', axis: b.config.axis, rounding: 'once', threads }),
    check: ({ out, weights }) => out.every((w, i) => Math.abs(w - weights[i]!) < 0.1),
  } satisfies BenchCase<'dequantize'>,
  {
    operation: 'layOut',
    args: ({ layer }, threads) => ({ ...layer.args, threads }),
    check: ({ layer }) => layer.panels.codes.some((byte) => byte !== 0),
  } satisfies BenchCase<'layOut'>,
  ...BATCHES.flatMap((batch) => [product(batch, 'float32'), product(batch, 'int8')]),
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
export async function* measureBackend(
  backend: Backend,
  size: number,
  threadCounts: readonly number[],
  signal: AbortSignal,
): AsyncGenerator<BenchRow, void, undefined> {
  const shared = buffers(size);
  for (const { operation, product, args, check } of CASES as readonly BenchCase<keyof Operations>[]) {
    for (const threads of threadCounts) {
      shared.y.fill(NaN); // a product that is not written is not the one before it
      const times = await repeat(() => runTask(backend, operation, args(shared, threads) as never, { signal }));
      if (!check(shared)) throw new Error(`${operation} on ${backend.isa} wrote nothing of use`);
      const { isa } = backend;
      yield {
        operation,
        product,
        isa,
        threads,
        size,
        weights: size * size,
        seconds: median(times),
        runs: times.length,
      };
    }
  }
}

/** Times of `run` after one that warms up. */
async function repeat(run: () => Promise<void>): Promise<number[]> {
  await run();
  const times: number[] = [];
  const began = performance.now();
  while (
    times.length < LEAST_RUNS ||
    (times.length < MOST_RUNS && performance.now() - began < SECONDS_PER_ROW * 1000)
  ) {
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
