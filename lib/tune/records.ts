import type { ChosenCodes } from '../containers/grid.js';

// What a state says of what is done.

/** Of the layer of a block: where what became of it lies in the block's file. */
export interface LayerRecord {
  /** Name of its weight. */
  readonly weight: string;
  readonly at: number;
  /** Input features whose importance is there; 0: none. */
  readonly importance: number;
  /** Codes and groups that were chosen; 0: what the solver finds was better. */
  readonly codes: number;
  readonly groups: number;
}

/** What became of a block. */
export interface BlockRecord {
  /** Mean squared error of what the block gives, on tokens that are held back. */
  readonly before: number;
  readonly after: number;
  readonly layers: readonly LayerRecord[];
}

/** What is to be remembered of a layer. */
export interface LayerOutcome {
  readonly weight: string;
  readonly importance: Float32Array | undefined;
  readonly chosen: ChosenCodes | undefined;
}

/** What became of the scales and zeros of all layers together. */
export interface ModelRecord {
  /** Mean divergence of the next token's probabilities, in nats, on tokens that are held back. */
  readonly before: number;
  readonly after: number;
  /** Where those of a layer lie in the model's file; none where they were better before. */
  readonly layers: readonly { readonly weight: string; readonly at: number; readonly groups: number }[];
}

export interface Saved {
  readonly version: 1;
  readonly key: string;
  readonly lengths: readonly number[];
  readonly trained: number;
  readonly blocks: BlockRecord[];
  readonly model?: ModelRecord | undefined;
}

/** Whether it is an index that this version has written. */
export function isSaved(value: unknown): value is Saved {
  const { version, key, lengths, trained, blocks } = (value ?? {}) as Partial<Saved>;
  const lists = Array.isArray(lengths) && Array.isArray(blocks);
  return version === 1 && typeof key === 'string' && lists && typeof trained === 'number';
}
