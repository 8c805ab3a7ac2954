import type { ResolvedQuantConfig } from './config.js';
import type { DType } from './dtype.js';
import type { Packing } from './format.js';

/** What became of one quantized weight. */
export interface TensorReport {
  /** The tensor's name in the original: `model.layers.0.self_attn.q_proj.weight`. */
  readonly name: string;
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  /** What it was quantized with, after overrides and adaptation. `groupSize` is a number. */
  readonly config: ResolvedQuantConfig;
  readonly packing: Packing;
  /** How scale and zero are stored. */
  readonly metaDtype: 'float16' | 'float32';
  /** Why the layer differs from what was asked for, if it does: "group size 32: 13 groups of 64 do not pack into 4bit_u8". */
  readonly adapted?: string;
  readonly meanAbsError: number;
  readonly meanSquaredError: number;
  /** `||W - W'|| / ||W||` with scale and zero as they are stored. */
  readonly relativeError: number;
  /** Stored bits per weight: codes, scale and zero. */
  readonly bitsPerWeight: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  /** Seconds in the backend. */
  readonly seconds: number;
}

/** A tensor that is carried over as it was. */
export interface DenseReport {
  readonly name: string;
  readonly shape: readonly number[];
  /** As the safetensors header names it: `BF16`, `I64`, ... */
  readonly dtype: string;
  readonly bytes: number;
  /** Why it was not quantized: "not a matrix", "embedding", "excluded by default: lm_head", ... */
  readonly reason: string;
}

/** Result of `quantizeModel`. */
export interface ModelReport {
  readonly input: string;
  readonly output: string;
  /** The options that apply where no override says otherwise. */
  readonly config: ResolvedQuantConfig;
  readonly dryRun: boolean;
  readonly tensors: readonly TensorReport[];
  readonly dense: readonly DenseReport[];
  readonly totals: {
    /** Quantized weights. */
    readonly weights: number;
    /** Codes, scales and zeros of quantized tensors, over their weights. */
    readonly bitsPerWeight: number;
    /** Sizes of all safetensors files. */
    readonly bytesBefore: number;
    readonly bytesAfter: number;
    /** Over all quantized weights. */
    readonly meanAbsError: number;
    readonly relativeError: number;
    /** Seconds from start to renamed output. */
    readonly seconds: number;
    /** Of these, seconds in the backend. */
    readonly computeSeconds: number;
  };
  /** Remarks for people: "lm_head.weight is tied to the embedding and was left as it is". */
  readonly notes: readonly string[];
}

/** Where a conversion stands. Reported after every chunk of work; rates are the caller's to compute. */
export interface Progress {
  /** The tensor being worked on, as the original names it. */
  readonly tensor: string;
  /** Weights quantized (or dequantized) so far, and in all. */
  readonly weightsDone: number;
  readonly weightsTotal: number;
  /** Tensors finished, and in all. */
  readonly tensorsDone: number;
  readonly tensorsTotal: number;
}

/** How one tensor of two checkpoints differs. */
export interface TensorComparison {
  readonly name: string;
  readonly shape: readonly number[];
  /** How `b` holds it: "4-bit, group 64, axis 1" or a dtype. */
  readonly storage: string;
  readonly meanAbsError: number;
  readonly maxAbsError: number;
  /** `||a - b|| / ||a||` */
  readonly relativeError: number;
}

/** Result of `compareModels`. */
export interface CompareReport {
  readonly original: string;
  readonly quantized: string;
  readonly tensors: readonly TensorComparison[];
  /** Floating-point tensors that are carried over: compared too, as a count of equal and different ones. */
  readonly dense: { readonly equal: number; readonly different: readonly string[] };
  readonly totals: { readonly weights: number; readonly meanAbsError: number; readonly relativeError: number };
}

/** One entry of `Model.tensors`. */
export interface TensorInfo {
  /** The name that the original has: `<module>.weight` for a quantized layer. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Element type as safetensors names it; `undefined` for a quantized tensor. */
  readonly dtype: string | undefined;
  /** Bytes on disk, with scales, zeros and flags. */
  readonly bytes: number;
  readonly quantized?: {
    readonly nbits: number;
    readonly groupSize: number;
    readonly axis: 0 | 1;
    readonly packing: Packing;
    readonly metaDtype: DType;
    /** The dtype in which Python computes the layer unless told otherwise. */
    readonly computeDtype: DType;
    readonly bias: boolean;
    readonly bitsPerWeight: number;
  };
}
