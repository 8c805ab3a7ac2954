import type { DequantizeArgs, FloatBits, ImportanceArgs, PackArgs, QuantizeArgs, Words } from '../../binding.js';
import { blockOf } from '../matrix/block.js';
import { highestCode, type ResolvedQuantConfig } from '../matrix/config.js';
import { DTYPES, type DType } from '../matrix/dtype.js';
import { type PackFormat, packedRows } from '../matrix/format.js';
import { HqqError } from '../messages/errors.js';
import { solverNamed, ZERO_KINDS } from '../solvers/solvers.js';

// Arguments of the backend's operations, made in this one place for blocking calls, asynchronous calls and the checkpoint
// converter, which works on chunks of the grouped matrix. Arrays must be as long as binding.d.ts says.

/** The grouped matrix `[rows, cols]`, or a chunk of it, and how its codes are packed. */
interface Grid {
  readonly rows: number;
  readonly cols: number;
  readonly format: PackFormat;
  /** Packed rows: default as many as hold `rows`. */
  readonly step?: number | undefined;
  readonly threads: number;
}

interface GroupedQuantize extends Grid {
  readonly weights: FloatBits;
  readonly dtype: DType;
  readonly axis: 0 | 1;
  /** Its `groupSize` and `axis` are not read: `cols` (axis 1) or `rows` (axis 0) is the size of a group here. */
  readonly config: ResolvedQuantConfig;
  /** How scale and zero will be stored; errors are measured with them rounded so. */
  readonly metaDtype: DType;
  /** How much the errors of each input feature count: default all alike. */
  readonly importance?: ImportanceArgs | undefined;
  readonly packed: Words;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
  /** `[5]`: see `readStats`. */
  readonly stats: Float64Array;
}

/** Arguments of `quantize`. */
export function groupedQuantizeArgs(given: GroupedQuantize): QuantizeArgs {
  const { rows, cols, axis, format } = given;
  const solver = solverArgs(given.config);
  // Written out: V8 makes a dictionary of some kilobytes of an object that is spread into, and a model has thousands of chunks.
  return {
    rows,
    cols,
    step: given.step ?? packedRows(format, rows),
    format: format.id,
    threads: given.threads,
    maxCode: solver.maxCode,
    solver: solver.solver,
    parameters: solver.parameters,
    zeroKind: solver.zeroKind,
    referenceGuards: solver.referenceGuards,
    scaleDtype: solver.scaleDtype,
    importance: given.importance,
    block: blockOf(axis === 1 ? cols : rows),
    weights: given.weights,
    dtype: DTYPES[given.dtype].id,
    axis,
    metaDtype: DTYPES[given.metaDtype].id,
    packed: given.packed,
    scale: given.scale,
    zero: given.zero,
    stats: given.stats,
  };
}

type SolverArgs = Pick<
  QuantizeArgs,
  'maxCode' | 'solver' | 'parameters' | 'zeroKind' | 'referenceGuards' | 'scaleDtype'
>;

/** By configuration, which is the same for all chunks of a layer. */
const known = new WeakMap<ResolvedQuantConfig, SolverArgs>();

/** What backends are told of the configuration: every number that both must agree on is computed here, once. */
export function solverArgs(config: ResolvedQuantConfig): SolverArgs {
  let args = known.get(config);
  if (args === undefined) known.set(config, (args = tellSolver(config)));
  return args;
}

function tellSolver(config: ResolvedQuantConfig): SolverArgs {
  const { id, parameters } = solverNamed(config.solver);
  const maxCode = highestCode(config.nbits);
  return {
    maxCode,
    solver: id,
    parameters: parameters({ ...config, maxCode }),
    zeroKind: ZERO_KINDS.indexOf(config.roundZero ? 'roundedStart' : config.zeroPoint),
    referenceGuards: config.referenceGuards,
    scaleDtype: DTYPES[config.scaleDtype].id,
  };
}

interface GroupedDequantize extends Grid {
  readonly packed: Words;
  readonly axis: 0 | 1;
  readonly scale: Float32Array;
  readonly zero: Float32Array;
  /** Type of `out`. */
  readonly dtype: DType;
  readonly rounding: 'once' | 'each';
  readonly out: FloatBits;
}

/** Arguments of `dequantize`. */
export function groupedDequantizeArgs(given: GroupedDequantize): DequantizeArgs {
  return {
    ...grid(given),
    packed: given.packed,
    axis: given.axis,
    scale: given.scale,
    zero: given.zero,
    dtype: DTYPES[given.dtype].id,
    roundEach: given.rounding === 'each',
    out: given.out,
  };
}

/** Arguments of `pack` and `unpack`. */
export function packArgs(given: Grid & { readonly codes: Uint8Array; readonly packed: Words }): PackArgs {
  return { ...grid(given), codes: given.codes, packed: given.packed };
}

function grid({ rows, cols, format, step, threads }: Grid) {
  return { rows, cols, step: step ?? packedRows(format, rows), format: format.id, threads };
}

/** What the backend measured: sums, so that those of chunks can be added. */
export interface QuantSums {
  readonly absError: number;
  readonly squaredError: number;
  readonly squaredWeight: number;
  readonly iterations: number;
  /** The first weight that is not finite, counted in the array that was given; or -1. The rest is then meaningless. */
  readonly badIndex: number;
}

/** Reads the `stats` of `quantize`. */
export function readStats(stats: Float64Array): QuantSums {
  type Five = [number, number, number, number, number];
  const [absError, squaredError, squaredWeight, iterations, badIndex] = stats as unknown as Five;
  return { absError, squaredError, squaredWeight, iterations, badIndex };
}

/** `||W - W'|| / ||W||` from its two sums; 0 where zeros are reproduced exactly. */
export function relativeError(squaredError: number, squaredWeight: number): number {
  return squaredError === 0 ? 0 : Math.sqrt(squaredError / squaredWeight);
}

/**
 * The error for a weight that is not finite.
 *
 * @param name What holds it: a tensor's name, or "The weight matrix".
 * @param index Where it is in `weights`.
 * @param position Where that is in the whole matrix, row-major.
 */
export function nonFiniteError(
  name: string,
  weights: FloatBits,
  dtype: DType,
  index: number,
  position: number,
  inFeatures: number,
): HqqError {
  const row = Math.floor(position / inFeatures);
  const value = nameOfNonFinite(weights[index]!, dtype);
  return new HqqError(
    'ERR_NON_FINITE_WEIGHT',
    `${name} holds ${value} at row ${row}, column ${position % inFeatures}.`,
  );
}

/** What stands for infinity in raw bits without the sign; all above it are NaN. */
const INFINITY_BITS = { float16: 0x7c00, bfloat16: 0x7f80 } as const;

function nameOfNonFinite(value: number, dtype: DType): string {
  if (dtype === 'float32') return String(value);
  const magnitude = value & 0x7fff;
  if (magnitude > INFINITY_BITS[dtype]) return 'NaN';
  return value === magnitude ? 'Infinity' : '-Infinity';
}
