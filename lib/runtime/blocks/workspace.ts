import { allocating } from '../../compute/run.js';
import type { LanguageModelConfig } from '../config/model-config.js';

/**
 * Buffers of a step of `rows` positions, used by one block after the other. After a block has run, `attentionIn`, `attended`,
 * `mlpIn` and `activated` hold what went into its linear layers: calibration reads them there.
 */
export class Workspace {
  /** Positions of the step. */
  readonly rows: number;
  /** `[rows, hiddenSize]`: what flows from block to block. */
  readonly hidden: Float32Array;
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

  constructor({ hiddenSize, heads, kvHeads, headDim, intermediateSize }: LanguageModelConfig, rows: number) {
    const floats = (width: number) => allocating('the activations', () => new Float32Array(rows * width));
    this.rows = rows;
    this.hidden = floats(hiddenSize);
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
}
