// What a model gives that an engine can run, part by part, to see what goes into its layers. Nothing here knows which engine that is.

/** A value that somebody has to give. */
export interface GraphInput {
  readonly name: string;
  /** As ONNX calls it: `float32`, `int64`, `bool`. */
  readonly type: string;
  /** Sizes; names of those that are not said, '' where there is not even a name. Undefined: not even their number is said. */
  readonly dims: readonly (number | string)[] | undefined;
  /** Rows of the smallest table that is looked up by it; undefined where none is. */
  readonly rows: number | undefined;
}

/** A value that goes into layers. */
export interface Tap {
  readonly value: string;
  /** Names of the layers, and how many input features all have. */
  readonly layers: readonly string[];
  readonly inFeatures: number;
}

/** What is known of a value once it was computed. */
export interface ValueKind {
  readonly type: string;
  readonly rank: number;
}

/** Some of the outputs of a product. */
export interface Piece {
  readonly from: number;
  readonly to: number;
}

/** Some of the nodes of a graph, with what they need of its weights: a model of its own. */
export interface GraphPart {
  /** Values of the graph, or of parts before, that have to be given. */
  readonly inputs: readonly string[];
  /** Values that it gives: those that are tapped, and those that later parts take. */
  readonly outputs: readonly string[];
  /** Those that no later part takes any more. */
  readonly last: readonly string[];
  readonly taps: readonly Tap[];
  /** Of a product whose matrix is large: models that compute some of its outputs each, which follow each other along the last side. */
  readonly pieces?: readonly Piece[];
  /** The bytes of the model, or of that of a piece, whose larger weights lie in files of `folder`. */
  model(kinds: ReadonlyMap<string, ValueKind>, piece?: Piece): Promise<Uint8Array>;
}

/** What a graph says of the token that comes next, `[.., tokens of the vocabulary]`. */
export interface Logits {
  readonly value: string;
  /** One after the other they compute it. */
  readonly parts: readonly GraphPart[];
}

/** A graph that can be run. */
export interface RunnableGraph {
  /** Its file, and the folder that its weights are found from. */
  readonly path: string;
  readonly folder: string;
  readonly inputs: readonly GraphInput[];
  /** Tokens of the longest text that it was made for; undefined where nothing says so. */
  readonly maxPositions: number | undefined;
  /** Taps of inputs of the graph itself. */
  readonly given: readonly Tap[];
  /** One after the other they compute all that is tapped. */
  readonly parts: readonly GraphPart[];
  /** Undefined where the graph gives nothing that is called so. */
  readonly logits: Logits | undefined;
  /** Layers that nothing is tapped of: what goes in is computed within a loop or a branch. */
  readonly hidden: readonly string[];
}
