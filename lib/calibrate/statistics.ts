/** What goes into the linear layers of a model. */
export interface Statistics {
  /** What it was found with: `random`, `own`, `text`, or the path of a file. */
  readonly source: string;
  /** Tokens that the model read; undefined where a file does not say. */
  readonly tokens: number | undefined;
  /** Mean of the squares that go into each linear layer, `[inFeatures]`, by module: `model.layers.0.self_attn.q_proj`. */
  readonly meanSquares: ReadonlyMap<string, Float32Array>;
}
