/** What goes into a linear layer. */
export interface LinearInput {
  /** The layer's module, as checkpoints call it: `model.layers.0.self_attn.q_proj`. */
  readonly module: string;
  /** Positions that go through it at once. */
  readonly rows: number;
  /**
   * `[rows, inFeatures]`. The array is the runtime's, and the next run writes to it: it is valid until the tap returns, or until
   * what it returns settles. Layers of one input (q, k and v; gate and up) are given the same array.
   */
  readonly x: Float32Array;
}

/** Sees the inputs of linear layers, in the order in which they are computed. What it throws ends the run. */
export type Tap = (input: LinearInput) => void | Promise<void>;

/** Shows the tap one input after the other. */
export async function showInputs(tap: Tap, inputs: readonly LinearInput[]): Promise<void> {
  for (const input of inputs) await tap(input);
}
