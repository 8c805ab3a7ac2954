import { allocating } from '../../messages/allocating.js';
import type { LanguageModelConfig } from '../config/model-config.js';

/**
 * What one block reads and writes beside the rows that flow through it. Blocks that run one after the other may share a frame,
 * which then holds what the last of them left; with a frame each, all inputs of their linear layers are there after the run.
 */
export class Frame {
  /** Into q, k and v. */
  readonly attentionIn: Float32Array;
  /** Out of q, turned. */
  readonly queries: Float32Array;
  /** Out of k, turned. */
  readonly keys: Float32Array;
  /** Out of v. */
  readonly values: Float32Array;
  /** Into o. */
  readonly attended: Float32Array;
  /** Into gate and up. */
  readonly mlpIn: Float32Array;
  /** Out of gate. */
  readonly gate: Float32Array;
  /** Out of up. */
  readonly up: Float32Array;
  /** Into down. */
  readonly activated: Float32Array;
  /** Out of o, and out of down. */
  readonly change: Float32Array;

  /** @param rows How many positions go through the block at once. */
  constructor(config: LanguageModelConfig, rows: number) {
    const { hiddenSize, heads, kvHeads, headDim, intermediateSize } = config;
    const floats = (width: number) => allocating('the activations', () => new Float32Array(rows * width));
    this.attentionIn = floats(hiddenSize);
    this.queries = floats(heads * headDim);
    this.keys = floats(kvHeads * headDim);
    this.values = floats(kvHeads * headDim);
    this.attended = floats(heads * headDim);
    this.mlpIn = floats(hiddenSize);
    this.gate = floats(intermediateSize);
    this.up = floats(intermediateSize);
    this.activated = floats(intermediateSize);
    this.change = floats(hiddenSize);
  }

  /** Bytes that a frame takes for each row. */
  static bytesPerRow({ hiddenSize, heads, kvHeads, headDim, intermediateSize }: LanguageModelConfig): number {
    const floats = 3 * hiddenSize + 2 * (heads + kvHeads) * headDim + 3 * intermediateSize;
    return floats * Float32Array.BYTES_PER_ELEMENT;
  }
}
