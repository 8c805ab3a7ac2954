import type { OwnedFloat32Array, OwnedFloat64Array, OwnedInt32Array, OwnedUint8Array } from './arrays.js';
import type { NBits } from './config.js';
import type { DType } from './dtype.js';
import type { Packing } from './format.js';

/** A `Float16Array`, which TypeScript before 5.8 and Node before 24 do not have. */
export interface Float16Numbers extends ArrayBufferView {
  /** Its class. */
  readonly [Symbol.toStringTag]: 'Float16Array';
  /** How many numbers there are. */
  readonly length: number;
}

/** A weight matrix whose numbers say themselves what they are: float32 or float16. */
export interface FloatWeight {
  /** Numbers, row-major. */
  readonly data: Float32Array | Float16Numbers;
  /** Need not be said. */
  readonly dtype?: undefined;
  /** Rows and columns, `[outFeatures, inFeatures]`: two positive integers. */
  readonly shape: readonly number[];
}

/** A weight matrix as it lies in memory or in a file. */
export interface RawWeight {
  /**
   * Numbers, row-major: float32, the raw bits of float16 and bfloat16, or the little-endian bytes of any. Bytes may begin
   * anywhere; where that is no multiple of a number's size, they are copied.
   */
  readonly data: Float32Array | Uint16Array | Float16Numbers | Uint8Array | ArrayBufferLike;
  /** What `data` holds. */
  readonly dtype: DType;
  /** Rows and columns, `[outFeatures, inFeatures]`: two positive integers. */
  readonly shape: readonly number[];
}

/** A weight matrix, row-major `[outFeatures, inFeatures]`. float16 and bfloat16 may travel as raw bits, all types as bytes. */
export type Weight = FloatWeight | RawWeight;

/** A weight as backends take it. */
export interface PlainWeight {
  readonly data: Float32Array | Uint16Array;
  readonly dtype: DType;
  readonly shape: readonly [outFeatures: number, inFeatures: number];
}

/** What quantizing cost, over all weights of the matrix. */
export interface QuantStats {
  /** Mean of `|W - W'|`, in units of the weights. */
  readonly meanAbsError: number;
  /** Mean of `(W - W')^2`. */
  readonly meanSquaredError: number;
  /** `||W - W'|| / ||W||` (Frobenius); 0 for a matrix of zeros that is reproduced exactly. */
  readonly relativeError: number;
  /** Most iterations that any group took, the last being the one that changed nothing; 0 for `minmax`. */
  readonly iterations: number;
}

/**
 * Numbers of which each group has one, as bytes: that of group `g` is `(codes[g] - zero[s]) * scale[s]`, in float32, with
 * `s = g % scale.length` its set.
 */
export interface MetaCodes {
  /** One per group. */
  readonly codes: OwnedUint8Array;
  /** One per set of groups, of which all have as many. */
  readonly scale: OwnedFloat32Array;
  /** One per set. */
  readonly zero: OwnedFloat32Array;
}

/** Scale and zero as they are stored, where that is as bytes. */
export interface QuantizedMeta {
  /** What `scale` of the tensor was widened from; absent where that is as it is stored. */
  readonly scale?: MetaCodes;
  /** The same of `zero`. */
  readonly zero?: MetaCodes;
}

/** Options that were `'auto'`, as they were chosen. */
export interface ChosenOptions {
  /** Exponent of the Lp norm. */
  readonly lpNorm?: number;
  /** Penalty of the half-quadratic split. */
  readonly beta?: number;
  /** Penalty of solver `'hqs'`. */
  readonly lambda?: number;
  /** Penalty of solver `'admm'`. */
  readonly rho?: number;
  /** Most iterations of a group. */
  readonly iterations?: number;
}

/** A weight matrix as HQQ codes: `W[o, i] ~ (code - zero[g]) * scale[g]`, `g` the group of `(o, i)`. */
export interface QuantizedTensor {
  /** Bits per code. */
  readonly nbits: NBits;
  /** Weights per group, as a number also where `null` was asked for. */
  readonly groupSize: number;
  /** Side along which groups run: 1 for parts of rows, 0 for parts of columns. */
  readonly axis: 0 | 1;
  /** Shape of the weight. */
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  /** How codes sit in `packed`. */
  readonly packing: Packing;
  /** Codes in words, `[ceil(rows / fields), cols]` of the grouped matrix; `W_q` in a checkpoint. See lib/matrix/format.ts. */
  readonly packed: OwnedUint8Array | OwnedInt32Array;
  /** Step between levels, one per group, in units of the weights. */
  readonly scale: OwnedFloat32Array;
  /** The code (fractional) that stands for 0, one per group. */
  readonly zero: OwnedFloat32Array;
  /** With `metaBits: 8`: what `scale` and `zero` were widened from, exactly. It is what is stored; products read the wide ones. */
  readonly meta?: QuantizedMeta;
  /** What options that were `'auto'` were chosen to be; absent where none were. */
  readonly chosen?: ChosenOptions;
  /** How far codes, scale and zero are from the weights. */
  readonly stats: QuantStats;
  /**
   * With `trace: true`: the objective after each iteration, summed over groups, those that have stopped included; of a solver
   * without iterations that of its result. The sum of squared errors where solvers minimise squares (`lpNorm` 2, `minmax`), else of
   * absolute errors. Before scales and zeros are quantized themselves.
   */
  readonly trace?: OwnedFloat64Array;
  /** What was taken in place of a default that does not fit, and why: "group size 32: 13 groups of 64 do not pack into 4bit_u8". */
  readonly adapted?: string;
}

/** What calls read of a quantized tensor; its arrays may lie in memory that threads share, too. */
export interface QuantizedTensorLike
  extends Pick<QuantizedTensor, 'nbits' | 'groupSize' | 'axis' | 'shape' | 'packing'> {
  /** As in `QuantizedTensor`. */
  readonly packed: Uint8Array | Int32Array;
  /** As in `QuantizedTensor`. */
  readonly scale: Float32Array;
  /** As in `QuantizedTensor`. */
  readonly zero: Float32Array;
  /** Not read, but where it is stored. */
  readonly meta?: QuantizedMeta | undefined;
  /** Not read. */
  readonly stats?: QuantStats | undefined;
  /** Not read. */
  readonly trace?: Float64Array | undefined;
  /** Not read. */
  readonly adapted?: string | undefined;
}

/** How one call of `quantize` runs. */
export interface QuantizeOptions extends RunOptions {
  /**
   * How much the errors of each input feature count, `[inFeatures]`, finite and at least 0: of a linear layer, the mean of the squares
   * that go into it. Only the proportions within a group matter. Errors that are reported, and a `trace`, do not weigh it; `minmax` does
   * not read it. It is copied.
   *
   * @default all count alike
   */
  readonly importance?: Float32Array | undefined;
}

/** How one call runs. */
export interface RunOptions {
  /** Aborts the call: it rejects with the signal's reason, within milliseconds. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Threads that the call may use, 1 to 256.
   *
   * @default HQQ_THREADS, else the parallelism that the system offers
   */
  readonly threads?: number | undefined;
}
