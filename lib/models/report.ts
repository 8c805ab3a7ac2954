import type { ResolvedQuantConfig } from '../matrix/config.js';
import type { DType } from '../matrix/dtype.js';

/** What became of one quantized weight. */
export interface TensorReport {
  /** The tensor's name in the original: `model.layers.0.self_attn.q_proj.weight`. */
  readonly name: string;
  /** Shape of the weight. */
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  /** What it was quantized with, after overrides and adaptation. `groupSize` is a number. */
  readonly config: ResolvedQuantConfig;
  /** How its codes are stored: a `Packing` of HQQ. */
  readonly packing: string;
  /** How scale and zero are stored; absent where they are no floating-point numbers. */
  readonly metaDtype?: DType;
  /** Why the layer differs from what was asked for, if it does: "group size 32: 13 groups of 64 do not pack into 4bit_u8". */
  readonly adapted?: string;
  /** Mean of `|W - W'|`, in units of the weights. NaN in a dry run. */
  readonly meanAbsError: number;
  /** Mean of `(W - W')^2`. NaN in a dry run. */
  readonly meanSquaredError: number;
  /** `||W - W'|| / ||W||` with scale and zero as they are stored. NaN in a dry run. */
  readonly relativeError: number;
  /** The part of its weights that `prune` made zeros; absent where nothing was pruned. Errors are those to the weights before. */
  readonly sparsity?: number;
  /** Stored bits per weight: codes, scale and zero. */
  readonly bitsPerWeight: number;
  /** Bytes of the weight in the original. */
  readonly bytesBefore: number;
  /** Bytes of all that the layer becomes: codes, scale, zero and flags. */
  readonly bytesAfter: number;
  /** Seconds in the backend. 0 in a dry run. */
  readonly seconds: number;
}

/** A tensor that is carried over as it was. */
export interface DenseReport {
  /** The tensor's name. */
  readonly name: string;
  /** Its shape. */
  readonly shape: readonly number[];
  /** As its file names it: `BF16`, `I64`, ... */
  readonly dtype: string;
  /** Bytes that it takes. */
  readonly bytes: number;
  /** Why it was not quantized: "not a matrix", "embedding", "excluded by default: lm_head", ... */
  readonly reason: string;
}

/** Result of `quantizeModel`. */
export interface ModelReport {
  /** The model that was read, as it was given. */
  readonly input: string;
  /** What was written, as it was given. */
  readonly output: string;
  /** The options that apply where no override says otherwise. */
  readonly config: ResolvedQuantConfig;
  /**
   * What the errors of each input feature counted by: `random`, `own`, `text`, the path of a file of statistics, or `none`. Errors in this
   * report do not weigh it: they are larger than without, where what the model computes is nearer.
   */
  readonly importance: string;
  /**
   * Whether this was only a plan: nothing was written, and errors are NaN (`null` in JSON): of each tensor `meanAbsError`,
   * `meanSquaredError` and `relativeError`, of `totals` `meanAbsError` and `relativeError`. Seconds of computing are 0. Sizes, types
   * and bits are those that a run would come to, where weights do not decide: `metaDtype` `'auto'` is counted as float16.
   */
  readonly dryRun: boolean;
  /** Whether the input was quantized already: errors are those that this adds. */
  readonly requantized: boolean;
  /** Quantized weights, file after file. */
  readonly tensors: readonly TensorReport[];
  /** All other tensors. */
  readonly dense: readonly DenseReport[];
  /** Over the whole model. */
  readonly totals: {
    /** Quantized weights. */
    readonly weights: number;
    /** The part of quantized weights that `prune` made zeros; absent where nothing was pruned. */
    readonly sparsity?: number;
    /** Codes, scales and zeros of quantized tensors, over their weights. */
    readonly bitsPerWeight: number;
    /** Sizes of all safetensors files. */
    readonly bytesBefore: number;
    /** The same of the output. */
    readonly bytesAfter: number;
    /** Over all quantized weights. NaN in a dry run. */
    readonly meanAbsError: number;
    /** `||W - W'|| / ||W||` over all quantized weights. NaN in a dry run. */
    readonly relativeError: number;
    /** Seconds from start to renamed output. */
    readonly seconds: number;
    /** Of these, seconds in the backend. 0 in a dry run. */
    readonly computeSeconds: number;
  };
  /** Remarks for people: "lm_head.weight is tied to the embedding and was left as it is". */
  readonly notes: readonly string[];
}

/** Where a conversion stands. Reported after every chunk of work; rates are the caller's to compute. */
export interface Progress {
  /**
   * Before weights are quantized, where that takes importance: how far this is. Of `writing` (the model writes a text) in tokens, of
   * `expecting` (which tokens it expects, for random ones) and `reading` in tokens that have been through a block. All other numbers are 0 then, and `tensor` is ''.
   */
  readonly importance?: {
    /** Whether it is found which tokens the model expects, or the model writes a text, or reads one. */
    readonly phase: 'expecting' | 'writing' | 'reading';
    /** Tokens that are done. */
    readonly done: number;
    /** Tokens in all. */
    readonly total: number;
  };
  /** After that, where codes are tuned: how far this is. All other numbers are 0 then, and `tensor` is ''. */
  readonly tuning?: {
    /** Steps of all blocks that are done. */
    readonly done: number;
    /** Steps in all: of a run that goes on where another was stopped, those that are left. */
    readonly total: number;
    /** The block that is being tuned, from 0. */
    readonly block: number;
    /** Blocks in all. */
    readonly blocks: number;
  };
  /** The tensor being worked on, as the original names it. */
  readonly tensor: string;
  /** Weights quantized (or dequantized) so far, and in all. */
  readonly weightsDone: number;
  /** Weights in all. */
  readonly weightsTotal: number;
  /** Tensors finished, and in all. */
  readonly tensorsDone: number;
  /** Tensors in all. */
  readonly tensorsTotal: number;
}

/** How one tensor of two checkpoints differs. */
export interface TensorComparison {
  /** The tensor's name in the original. */
  readonly name: string;
  /** Its shape. */
  readonly shape: readonly number[];
  /** How `b` holds it: "4-bit, group 64, axis 1" or a dtype. */
  readonly storage: string;
  /** Mean of `|a - b|`. */
  readonly meanAbsError: number;
  /** Largest `|a - b|`. */
  readonly maxAbsError: number;
  /** `||a - b|| / ||a||` */
  readonly relativeError: number;
}

/** Result of `compareModels`. */
export interface CompareReport {
  /** The first model, as it was given. */
  readonly original: string;
  /** The second, as it was given. */
  readonly quantized: string;
  /** Tensors that the second holds quantized. */
  readonly tensors: readonly TensorComparison[];
  /** Tensors that are not in `tensors`, which are equal or nearly or are no matrices: counted, and named where they differ. */
  readonly dense: {
    /** How many hold the same numbers: in the same type the same bits, or in one that holds each of them exactly. */
    readonly equal: number;
    /**
     * How many are equal but for rounding to the type that the second holds them in, by that type: `{ float16: 3 }`. No number
     * of them became infinite.
     */
    readonly rounded: Readonly<Partial<Record<DType, number>>>;
    /** Names of the others: they hold other numbers, ones that overflowed to infinity too, or only one of the two has them. */
    readonly different: readonly string[];
  };
  /** Over all of `tensors`. */
  readonly totals: {
    /** Weights that were compared. */
    readonly weights: number;
    /** Mean of `|a - b|`. */
    readonly meanAbsError: number;
    /** `||a - b|| / ||a||` */
    readonly relativeError: number;
  };
  /** Remarks for people: 'Only the float models of ./b were compared, not "onnx/model_q4.onnx": ...'. */
  readonly notes: readonly string[];
}

/** One entry of `Model.tensors`. */
export interface TensorInfo {
  /** The name that the original has: `<module>.weight` for a quantized layer. */
  readonly name: string;
  /** Shape; of a quantized layer, that of its weight. */
  readonly shape: readonly number[];
  /** Element type as its file names it; `undefined` for a quantized tensor. */
  readonly dtype: string | undefined;
  /** Bytes on disk, with scales, zeros and flags. */
  readonly bytes: number;
  /** How a quantized layer is stored; absent for other tensors. */
  readonly quantized?: {
    /** Bits per code. */
    readonly nbits: number;
    /** Weights per group. */
    readonly groupSize: number;
    /** Side along which groups run. */
    readonly axis: 0 | 1;
    /** How codes are stored: a `Packing` of HQQ. */
    readonly packing: string;
    /** How scale and zero are stored; absent where they are no floating-point numbers. */
    readonly metaDtype?: DType;
    /** 8 where scale and zero are quantized themselves, to a byte each; absent where they are stored as they are. */
    readonly metaBits?: 8;
    /** The dtype in which Python computes the layer unless told otherwise; absent where the format does not say. */
    readonly computeDtype?: DType;
    /** Whether the layer has a bias. */
    readonly bias: boolean;
    /** Stored bits per weight: codes, scale and zero. */
    readonly bitsPerWeight: number;
  };
}
