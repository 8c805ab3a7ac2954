import type { AutoOption } from '../solvers/auto.js';
import type { ZeroPoint } from '../solvers/solver.js';
import type { Solver } from '../solvers/solvers.js';
import type { DType } from './dtype.js';
import type { Granularity, MetaBits } from './grouping.js';

/** Bit widths that HQQ defines. 5 and 6 are stored one per byte, 1.58 (three levels) as 2 bits. */
export const NBITS = [8, 6, 5, 4, 3, 2, 1.58, 1] as const;
/** One of `NBITS`. */
export type NBits = (typeof NBITS)[number];

/** Patterns of pruning: of how many weights of a row that follow each other how many go, as `'<many>:<each>'`. */
export const PRUNE_PATTERNS = ['2:4', '4:8'] as const satisfies readonly Prune[];
/** The part of weights that is pruned, or a pattern. */
export type Prune = number | '2:4' | '4:8';

/** The highest code of so many bits. */
export const highestCode = (nbits: NBits): number => (nbits === 1.58 ? 2 : 2 ** nbits - 1);

/**
 * How to quantize one weight matrix `W[outFeatures, inFeatures]`.
 *
 * Weights are cut into groups; each group gets one `scale` and one `zero`, and `W ~ (code - zero) * scale`.
 *
 * Names: mobiusml/hqq `hqq_base_quant_config` and `optimize_weights_proximal_legacy` (0.2.8). Its defaults, but for `roundZero`, which
 * is off for every bit width, are those of solver `'hqq'`.
 */
export interface QuantConfig {
  /**
   * Bits per code: 8, 6, 5, 4, 3, 2, 1.58 (the three levels 0, 1, 2) or 1. Codes of 6 and 5 bits are stored in 8, those of 1.58
   * in 2: with 8 and 2 the result is as small, and more exact.
   *
   * @default 4
   */
  readonly nbits?: NBits;

  /**
   * Weights per group: a positive integer that divides `outFeatures * inFeatures`. `null` makes each row (axis 1) or
   * each column (axis 0) one group.
   *
   * Smaller groups are more accurate and larger on disk: one scale and one zero per group add `32 / groupSize` bits to
   * each weight when they are stored in 16 bits, `64 / groupSize` in 32.
   *
   * `granularity` other than `'group'` takes its place.
   *
   * @default 64; where that does not fit the matrix another, which the result tells (`adapted`): 32, 16 or 8, else a part of
   *   a row, else a row
   * @throws {HqqError} `ERR_GROUP_SIZE` when it is given and does not divide the matrix.
   */
  readonly groupSize?: number | null;

  /**
   * What shares a scale and a zero: `'group'`, `groupSize` weights; `'channel'`, each row (axis 1) or column (axis 0), as `groupSize:
   * null`; `'tensor'`, all weights of the matrix; `'weight'`, none: each weight has its own, which keep it exactly, in more bits than
   * it had. All are stored as groups. The codes of a whole matrix fill their words on axis 0, which `'tensor'` takes unless another
   * is asked for.
   *
   * @default 'group'
   * @throws {HqqError} `ERR_INVALID_OPTION` with a `groupSize` beside it.
   */
  readonly granularity?: Granularity;

  /**
   * The side along which groups run: 1 for consecutive inputs of an output row, which fast kernels need; 0 for the
   * reference's first layout.
   *
   * @default 1; 0 where only then the codes fill whole words, which the result tells (`adapted`)
   */
  readonly axis?: 0 | 1;

  /**
   * `'joint'` fits scale and zero together, by least squares, from several ranges, and keeps the best. `'hqq'`, the reference's, moves
   * each group's zero point to a fixed point of the half-quadratic iteration, and keeps the scale of its range: more error in a
   * quarter to a half of the time. `'admm'` and `'hqs'` fit both from the range alone, by splitting: `'admm'`, which may pass through
   * worse fits and keeps the best, comes as far as `'joint'`. `'kl'` takes the part of the range whose histogram differs least from that
   * of the weights. `'minmax'` keeps the range: round to nearest.
   *
   * @default 'joint'; `'hqs'` where `lambda` is given, `'admm'` where `rho` is; `'hqq'` where options of the reference's solver are: an
   * `lpNorm` up to 1, `beta`, `kappa`, `roundZero` or `referenceGuards`, and no `zeroPoint` that it does not have
   * @throws {HqqError} `ERR_INVALID_OPTION` for GGUF unless it is `'joint'` or `'minmax'`: blocks are fitted by a search of their own, which
   *   reads no `lpNorm`, `beta`, `lambda`, `rho`, `kappa` or `iterations` either, and with which these are refused
   */
  readonly solver?: Solver;

  /**
   * Exponent p of the Lp norm that the solver minimises. `'joint'`: in (0, 1], or 2 for plain squares. `'hqq'`: in (0, 1]; it matters
   * only where residuals exceed `(1 / beta) ** (1 / (2 - p))` (0.17 for the defaults), in units of the weights.
   *
   * `'auto'`: of several exponents the one with the least squared error on a sample of the matrix's groups, evenly spaced and the
   * same on every machine; of a model, for each layer. Errors are weighed by `importance`. The result says which (`chosen`).
   *
   * @default 2; 0.7 for solver `'hqq'`
   * @throws {HqqError} `ERR_INVALID_OPTION` for an exponent that the solver does not minimise.
   */
  readonly lpNorm?: number | 'auto';

  /**
   * Penalty of the half-quadratic split: larger shrinks less. Positive and finite. Residuals are in units of the weights for
   * solver `'hqq'`, in levels of their group for `'joint'`, which does not read it where `lpNorm` is 2. `'auto'`: of 1 to 1000, as `lpNorm`
   * has it.
   *
   * @default 10
   */
  readonly beta?: number | 'auto';

  /**
   * Penalty of solver `'hqs'`, in [0, 1e6], which alone reads it: a code changes where its weight is more than `(1 + lambda) / 2` levels
   * off. 0 changes each that is not the nearest. `'auto'`: of 0 to 0.3, as `lpNorm` has it.
   *
   * @default 0.001
   * @throws {HqqError} `ERR_INVALID_OPTION` beside another solver, unless it is `'auto'`, which chooses nothing there, or the default,
   *   which resolved configurations hold
   */
  readonly lambda?: number | 'auto';

  /**
   * Penalty of solver `'admm'`, in [0.001, 1000], which alone reads it. Below 1 codes move on after they have settled, while it grows to 1
   * in ten iterations; above 1 they settle early, and it stays. `'auto'`: of 0.5 to 1, as `lpNorm` has it.
   *
   * @default 0.75
   * @throws {HqqError} `ERR_INVALID_OPTION` as `lambda`
   */
  readonly rho?: number | 'auto';

  /**
   * Factor by which `beta`, or `lambda`, grows after each iteration, at least 1. The reference's releases 0.2.7 to 0.2.8.post1 use 1,
   * others 1.01.
   *
   * @default 1
   */
  readonly kappa?: number;

  /**
   * Most iterations that a group may take, 1 to 1000. A group stops by itself at its fixed point. `'auto'`: the fewest
   * of 3 to 80 that come within 0.05 % of the least squared error on a sample, as `lpNorm` has it.
   *
   * @default 20
   */
  readonly iterations?: number | 'auto';

  /**
   * Which zeros groups may have. `'float'`: any number. `'integer'`: one of the codes, as ONNX Runtime, vLLM, AWQ and
   * compressed-tensors store it, found as such. `'symmetric'`: the middle code, `2 ** (nbits - 1)` (1 for 1.58 bits), with a scale
   * that may be negative.
   *
   * @default 'float'
   * @throws {HqqError} `ERR_INVALID_OPTION` for zeros that the solver cannot find: `'hqq'` moves nothing but float zeros.
   */
  readonly zeroPoint?: ZeroPoint;

  /**
   * The type that scales are stored in: they are rounded to it first, and codes chosen after. The scales of the result are
   * numbers of this type. `'float32'` rounds nothing.
   *
   * @default 'float32'
   * @throws {HqqError} `ERR_SCALE_RANGE` from `quantize`, where the type does not hold a scale.
   */
  readonly scaleDtype?: DType;

  /**
   * Round the zero point that the iteration starts from to an integer. The solver's result is fractional all the same:
   * `zeroPoint` is what makes zeros integers.
   *
   * @default false
   */
  readonly roundZero?: boolean;

  /**
   * Use the reference's absolute guards (a range of at most 1e-4 is one level; at most 20,000 levels per unit), to the
   * bit. Off, guards are relative to the group, so that small weights keep their precision. With solver `'hqq'` or `'minmax'` the result
   * is the reference's; `'joint'` has these guards where it starts from.
   *
   * @default false
   */
  readonly referenceGuards?: boolean;

  /**
   * 8: scales and zeros are quantized themselves, to a byte each, as the reference's `scale_quant_params` and `zero_quant_params`
   * do: scales in sets of 128, zeros all together. Codes are chosen after that. 4 bits in groups of 32 then cost 4.52 bits per
   * weight, where 16 give 5. 16: they are stored in 16 bits or 32. Loaders in Python read bytes with the lines of docs/python.md.
   *
   * @default 16
   */
  readonly metaBits?: MetaBits;

  /**
   * Which weights become zeros, exactly, before the rest is quantized: this part of each row, in [0, 1), or of every four weights of a
   * row two (`'2:4'`), of every eight four (`'4:8'`; what is left of a row stays). Those whose size times the root of their feature's
   * `importance` is least: Wanda (Sun et al., arXiv 2306.11695), whose importance is the mean square of what goes in. Codes that stand for zero take their bits all the same.
   * Tables of embeddings are not pruned. Of `quantizeModel` alone.
   *
   * @default 0
   * @throws {HqqError} `ERR_INVALID_OPTION` with zeros that are no codes (`zeroPoint` `'float'`): no code would stand for 0;
   *   from `quantize`, to which pruned weights are given as such.
   */
  readonly prune?: Prune;

  /**
   * Give the objective after each iteration, as `trace` of the result. Takes as many times as long as there are iterations.
   *
   * @default false
   */
  readonly trace?: boolean;
}

/** A `QuantConfig` with every option filled in. */
export type ResolvedQuantConfig = {
  readonly [K in keyof QuantConfig]-?: Exclude<QuantConfig[K], undefined | 'auto'>;
} & {
  /** Options that are still to be chosen for the matrix: until then they have their defaults. Absent: none. */
  readonly auto?: readonly AutoOption[];
  /** Options that were chosen for the matrix, since they were `'auto'`. Absent: none. */
  readonly chosen?: readonly AutoOption[];
};
