import type { Option } from '../matrix/option.js';
import { ENGINE_NAMES } from '../schemes/engines.js';
import { SCHEMES } from '../schemes/list.js';
import type { WidthsOption } from './widths-option.js';

/** Options that say what a model becomes. */
export interface FormatOptions extends WidthsOption {
  /**
   * The format of the output: how quantized layers are stored, and so who loads the model. Of `'hqq'` that is this package; of
   * `'compressed-tensors'` transformers 5, vLLM and SGLang; `'awq'` and `'gptq'` too, with limits; of `'torchao'` transformers 5, with
   * float zeros.
   *
   * Each has options that it cannot hold, and defaults of its own: zeros and scales as it stores them.
   *
   * @default the input's own: `'hqq'` of safetensors; with `for` that which the engine takes best
   * @throws {HqqError} `ERR_INVALID_OPTION` for options that the format cannot hold; `ERR_CHECKPOINT_CONTENT` for a model that
   *   cannot become it.
   */
  readonly to?: string | undefined;

  /**
   * The engine that is to load the output: `'transformers'` (5), `'vllm'`, `'sglang'` or `'llama.cpp'`. What it would not load is refused before anything is
   * written, and why.
   *
   * @default undefined, which checks nothing
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a layer that the engine would not load as it would be stored.
   */
  readonly for?: string | undefined;

  /**
   * Of a GGUF file: the type of its matrices (`'q4_k'`, `'q8_0'`), or the name of a mix of llama.cpp's (`'Q4_K_M'`, `'Q2_K'`).
   * `nbits` of an override is stronger. Rows that fill no blocks of 256 take the type of blocks of 32 that llama.cpp takes.
   *
   * @default what has as many bits as `nbits`: `'q4_k'`
   * @throws {HqqError} `ERR_INVALID_OPTION` for a model that is no GGUF file.
   */
  readonly type?: string | undefined;

  /**
   * Of an ONNX file: how onnxruntime multiplies. At level 4 inputs are rounded to 8 bits, block by block, which is some four times as fast;
   * at 0 they are not.
   *
   * @default 4
   * @throws {HqqError} `ERR_INVALID_OPTION` for another format that is asked for.
   */
  readonly accuracyLevel?: AccuracyLevel | undefined;

  /**
   * Takes a GGUF file of blocks, or of a folder of HQQ's layers that becomes a GGUF file, the numbers that they are, and fits these anew.
   * Errors add up: what is made of the float original is better, and errors of the report are those that this adds.
   *
   * @default false, which refuses such a GGUF file, and keeps HQQ's codes (as Q4_1 and Q5_1)
   */
  readonly requantize?: boolean | undefined;
}

/** Levels of MatMulNBits that are told apart. */
const ACCURACY_LEVELS = [4, 0] as const;
/** One of them. */
export type AccuracyLevel = (typeof ACCURACY_LEVELS)[number];

/** What they become. */
export interface ResolvedFormatOptions {
  readonly to: string | undefined;
  readonly for: string | undefined;
  readonly type: string | undefined;
  readonly accuracyLevel: AccuracyLevel | undefined;
  readonly requantize: boolean;
}

/** Every type that some scheme has. */
const TYPES = SCHEMES.flatMap(({ types = [] }) => types);

const oneOf = (names: readonly string[]) => (value: unknown) => value === undefined || names.includes(value as string);

/** In the shape of `OPTIONS` of one matrix. */
export const FORMAT_OPTIONS: { readonly [K in keyof ResolvedFormatOptions]: Option<ResolvedFormatOptions[K]> } = {
  to: {
    default: undefined,
    expected: `one of ${SCHEMES.map(({ name }) => name).join(', ')}`,
    accepts: (value) => value === undefined || SCHEMES.some(({ name }) => name === value),
    help: "format of the output; else the input's own, hqq of safetensors",
    parse: (text) => text,
  },
  for: {
    default: undefined,
    expected: `one of ${ENGINE_NAMES.join(', ')}`,
    accepts: oneOf(ENGINE_NAMES),
    help: 'engine that is to load the output: what it would not is refused',
    parse: (text) => text,
  },
  type: {
    default: undefined,
    expected: `one of ${TYPES.join(', ')}`,
    accepts: oneOf(TYPES),
    help: 'of a GGUF file: the type of its matrices (q4_k, q8_0, ...), or a mix (Q4_K_M, Q2_K, ...)',
    parse: (text) => text,
  },
  accuracyLevel: {
    default: undefined,
    expected: `one of ${ACCURACY_LEVELS.join(', ')}`,
    accepts: (value) => value === undefined || (ACCURACY_LEVELS as readonly unknown[]).includes(value),
    help: 'of an ONNX file: 4 rounds inputs to 8 bits as they are multiplied, which is faster; 0 does not',
    parse: (text) => (/^\d+$/.test(text.trim()) ? Number(text) : text),
  },
  requantize: {
    default: false,
    expected: 'true or false',
    accepts: (value) => typeof value === 'boolean',
    help: 'of a GGUF file: fit what is quantized already anew, whose errors add up',
  },
};
