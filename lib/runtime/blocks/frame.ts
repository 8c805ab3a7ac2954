import type { LanguageModelConfig } from '../config/model-config.js';
import { type Floats, NEW_FLOATS } from './scratch.js';
import type { LinearInput } from './tap.js';

/** Where the results of linear layers of one input go. */
export interface Outs {
  /** All of them side by side in each row, where one layer gives them; undefined where each has its own. */
  readonly whole: Float32Array | undefined;
  /** Each by itself. Of a single row these are parts of `whole`. */
  readonly parts: readonly Float32Array[];
}

/** What attention reads and writes of a text's rows. */
export interface TextViews {
  readonly positions: Int32Array;
  readonly q: Float32Array;
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly out: Float32Array;
}

/** What blocks with experts read and write: a row for each position and each expert that it goes through, those of an expert side by side. */
export interface ExpertFrame {
  /** `[rows, count]`: out of the router. */
  readonly logits: Float32Array;
  /** Into gate and up, `[rows * chosen, hiddenSize]`. */
  readonly gathered: Float32Array;
  /** Out of gate and up, `[rows * chosen, width]` each. */
  readonly mlp: Outs;
  /** Into down. */
  readonly activated: Float32Array;
  /** Out of down. */
  readonly results: Float32Array;
  /** What went into the layers of experts, as the last run left it. */
  inputs: readonly LinearInput[];
}

/**
 * What one block reads and writes beside the rows that flow through it. Blocks that run one after the other may share a frame,
 * which then holds what the last of them left; with a frame each, all inputs of their linear layers are there after the run.
 */
export class Frame {
  /** Into q, k and v. */
  readonly attentionIn: Float32Array;
  /** Out of q, k and v; the first two turned. */
  readonly attention: Outs;
  /** Into o. */
  readonly attended: Float32Array;
  /** Into the MLP. */
  readonly mlpIn: Float32Array;
  /** Out of gate and up. */
  readonly mlp: Outs;
  /** Into down. */
  readonly activated: Float32Array;
  /** Out of o, and out of the MLP. */
  readonly change: Float32Array;
  readonly experts: ExpertFrame | undefined;
  #views:
    | { readonly positions: Int32Array; readonly lengths: string; readonly texts: readonly TextViews[] }
    | undefined;

  /**
   * @param rows How many positions go through the block at once.
   * @param lean Whether what nobody reads any more may be written over: what comes out of gate by what goes into down, what comes out of q by
   *   what comes out of o.
   * @param memory Where its arrays come from.
   */
  constructor(config: LanguageModelConfig, rows: number, lean = false, memory: Floats = NEW_FLOATS) {
    const { hiddenSize, heads, kvHeads, headDim, experts, fused } = config;
    const width = denseWidth(config);
    const floats = (count: number) => memory.take(count);
    this.attentionIn = floats(rows * hiddenSize);
    this.attention = makeOuts([heads * headDim, kvHeads * headDim, kvHeads * headDim], rows, fused, memory);
    this.attended = floats(rows * heads * headDim);
    this.mlpIn = floats(rows * hiddenSize);
    this.mlp = makeOuts([width, width], rows, fused, memory);
    this.activated = lean ? this.mlp.parts[0]! : floats(rows * width);
    const [q] = this.attention.parts;
    this.change = lean && q!.length === rows * hiddenSize ? q! : floats(rows * hiddenSize);
    const each = rows * (experts?.chosen ?? 0);
    this.experts = experts && {
      logits: floats(rows * experts.count),
      gathered: floats(each * hiddenSize),
      mlp: makeOuts([experts.width, experts.width], each, false, memory),
      activated: floats(each * experts.width),
      results: floats(each * hiddenSize),
      inputs: [],
    };
  }

  /** The rows of texts, which lie one after the other: made once for all blocks that share the frame. */
  viewsOf(positions: Int32Array, texts: readonly { readonly rows: number }[]): readonly TextViews[] {
    const lengths = texts.map(({ rows }) => rows).join();
    if (this.#views?.positions !== positions || this.#views.lengths !== lengths)
      this.#views = { positions, lengths, texts: [...this.#cut(positions, texts)] };
    return this.#views.texts;
  }

  *#cut(positions: Int32Array, texts: readonly { readonly rows: number }[]): Generator<TextViews> {
    const [q, k, v] = this.attention.parts as [Float32Array, Float32Array, Float32Array];
    let from = 0;
    for (const { rows } of texts) {
      const to = from + rows;
      const cut = <T extends Float32Array | Int32Array>(of: T) => part(of, from, to, positions.length);
      yield { positions: cut(positions), q: cut(q), k: cut(k), v: cut(v), out: cut(this.attended) };
      from = to;
    }
  }

  /** Bytes that a frame takes for each row. */
  static bytesPerRow(config: LanguageModelConfig): number {
    const { hiddenSize, heads, kvHeads, headDim, experts, fused } = config;
    const [attention, width] = [(heads + 2 * kvHeads) * headDim, denseWidth(config)];
    const floats = 3 * hiddenSize + attention + heads * headDim + 3 * width + (fused ? attention + 2 * width : 0);
    const ofExperts = experts ? experts.count + experts.chosen * (2 * hiddenSize + 3 * experts.width) : 0;
    return (floats + ofExperts) * Float32Array.BYTES_PER_ELEMENT;
  }
}

/** Numbers inside the MLP of blocks without experts; 0 where there are none. */
function denseWidth({ experts, intermediateSize }: LanguageModelConfig): number {
  return experts?.blocks.every(Boolean) ? 0 : intermediateSize;
}

function makeOuts(widths: readonly number[], rows: number, fused: boolean, memory: Floats): Outs {
  const parts = () => widths.map((width) => memory.take(rows * width));
  if (!fused) return { whole: undefined, parts: parts() };
  const whole = memory.take(rows * widths.reduce((sum, width) => sum + width, 0));
  if (rows > 1) return { whole, parts: parts() };
  let end = 0;
  return { whole, parts: widths.map((width) => whole.subarray(end, (end += width))) };
}

/** Rows `[from, to)` of `count`. */
function part<T extends Float32Array | Int32Array>(rows: T, from: number, to: number, count: number): T {
  const width = rows.length / count;
  return rows.subarray(from * width, to * width) as T;
}
