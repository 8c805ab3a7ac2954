import type { Option } from '../matrix/option.js';

/** What importance is made from. */
export const IMPORTANCE_SOURCES = ['auto', 'none', 'random', 'own'] satisfies ImportanceSource[];

/** What the command line takes; programs may give objects, too. */
export const IMPORTANCE_WORDS = `one of ${IMPORTANCE_SOURCES.join(', ')}, text:<file>, a file of statistics`;

/** How what the errors of each input feature count is found: see `importance`. */
export type ImportanceSource =
  | 'auto'
  | 'none'
  | 'random'
  | 'own'
  | (string & {})
  | {
      /** The text that the model reads. */
      readonly text: string;
    }
  | {
      /** What the graph of an ONNX model is given, one run after the other: of each of its inputs a tensor. */
      readonly inputs: readonly Readonly<Record<string, GraphTensor>>[];
    };

/** A tensor as `onnxruntime-node` has it (`new ort.Tensor(type, data, dims)`), or one that is like it. */
export interface GraphTensor {
  /** `float32`, `int64`, and so on. */
  readonly type: string;
  /** An array of that type: `BigInt64Array` of `int64`. */
  readonly data: unknown;
  /** Its shape. */
  readonly dims: readonly number[];
}

/** What says how importance is found. */
export interface ImportanceOptions {
  /**
   * How much the errors of each input feature of a layer count: the mean of the squares that go into it. It decides 3 bits and fewer, and
   * helps 4; `minmax` does not read it.
   *
   * - `'random'`: what goes in when the model reads tokens that are drawn as often as it expects them: needs no text, and gives
   *   nearly all that text gives. One block of the model is in memory at a time.
   * - `'own'`: a text that the model writes itself. The whole model is in memory, in float32, or in 8 bits where that would take over 1 GiB.
   * - `'text:<file>'`, or `{ text }`: a text. Needs the tokenizer, as `openTokenizer` does.
   * - `{ inputs }`: of an ONNX model, what its graph is given.
   * - another text: a file of statistics, as `hqq calibrate` writes it, or an imatrix of llama.cpp as GGUF. A file whose name is one of the words above is `'./random'`.
   * - `'none'`: all count alike.
   * - `'auto'`: `'random'` where `hqq/runtime` runs the model, in native code, or onnxruntime-node is installed and runs the graph of an
   *   ONNX model; else `'none'`, and a note of the report says why. Layers of 8
   *   bits have none, since they gain nothing, nor have those of solver `'hqq'`, whose codes are the reference's.
   *
   * @default 'auto'
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a model that `hqq/runtime` does not run, where it would have to.
   */
  readonly importance?: ImportanceSource | undefined;

  /**
   * What `'random'` and `'own'` draw with, an integer in [0, 2^53 - 1]: the same seed gives the same numbers. On the same instruction
   * set, that is: sums of products differ between them in their last bits. Statistics that are saved are the same for all.
   *
   * @default 0
   */
  readonly seed?: number | undefined;

  /**
   * Tokens that the model reads, in texts of 256: 1 to 2^24. Of a text, at most so many.
   *
   * @default 2048
   */
  readonly tokens?: number | undefined;
}

/** Most tokens. */
const MAX_TOKENS = 1 << 24;

type Resolved = {
  readonly importance: ImportanceSource;
  readonly seed: number;
  readonly tokens: number;
};

const isInteger = (least: number, most: number) => (value: unknown) =>
  Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most;
const integer = (text: string): unknown => (/^\d+$/.test(text.trim()) ? Number(text) : text);

function isSource(value: unknown): boolean {
  if (typeof value === 'string') return value !== '' && value !== 'text:';
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== 1) return false;
  const { text, inputs } = value as { readonly text?: unknown; readonly inputs?: unknown };
  if (inputs !== undefined) return Array.isArray(inputs) && inputs.length > 0 && inputs.every(isFeeds);
  return typeof text === 'string' && text !== '';
}

function isFeeds(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.values(value).every((tensor: Partial<GraphTensor> | null) => {
    const { type, data, dims } = tensor ?? {};
    return typeof type === 'string' && Array.isArray(dims) && typeof data === 'object' && data !== null;
  });
}

/** The same in the shape of `OPTIONS` of one matrix: checks, command-line flags and help read it. */
export const IMPORTANCE_OPTIONS: { readonly [K in keyof Resolved]: Option<Resolved[K]> } = {
  importance: {
    default: 'auto',
    expected: `${IMPORTANCE_WORDS}, { text } or { inputs }`,
    accepts: isSource,
    help: 'what the errors of each input count by: random tokens, its own text, text:<file>, or saved statistics',
    parse: (text) => text,
  },
  seed: {
    default: 0,
    expected: 'an integer, at least 0',
    accepts: isInteger(0, Number.MAX_SAFE_INTEGER),
    help: 'what importance random and own draw with',
    parse: integer,
  },
  tokens: {
    default: 2048,
    expected: `an integer in [1, ${MAX_TOKENS}]`,
    accepts: isInteger(1, MAX_TOKENS),
    help: 'tokens that importance is found with',
    parse: integer,
  },
};
