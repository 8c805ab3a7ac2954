import { bytesOf } from '../compute/floats.js';
import type { ChosenCodes } from '../containers/grid.js';

// What a state says of what is done.

/** Of the layer of a block: where what became of it lies in the block's file. */
export interface LayerRecord {
  /** Name of its weight. */
  readonly weight: string;
  readonly at: number;
  /** Input features whose importance is there; 0: none. */
  readonly importance: number;
  /** Codes and groups; 0: none. */
  readonly codes: number;
  readonly groups: number;
  /** Whether they are the solver's, which were better: they are what the whole model is tuned on, and else not stored. */
  readonly solver: boolean;
  /** Whether a text of a step went through it: not through every expert one does. */
  readonly reached: boolean;
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
  readonly solver: boolean;
  readonly reached: boolean;
}

/** What is to be remembered of the layers of a block, as a file holds it: its arrays one after the other, and where each layer's are. */
export function laidOut(layers: readonly LayerOutcome[]): {
  readonly records: readonly LayerRecord[];
  readonly arrays: readonly Uint8Array[];
} {
  const arrays: Uint8Array[] = [];
  let at = 0;
  const records = layers.map(({ weight, importance, chosen, solver, reached }): LayerRecord => {
    const { codes, scale, zero } = chosen ?? {};
    const own = [importance, scale, zero, codes].flatMap((array) => (array ? [bytesOf(array)] : []));
    const counts = { importance: importance?.length ?? 0, codes: codes?.length ?? 0, groups: scale?.length ?? 0 };
    const record = { weight, at, ...counts, solver, reached };
    for (const bytes of own) at += bytes.byteLength;
    arrays.push(...own);
    return record;
  });
  return { records, arrays };
}

/** What became of the scales and zeros of all layers together. */
export interface ModelRecord {
  readonly steps: number;
  /** Mean divergence of the next token's probabilities, in nats, on tokens that are held back. */
  readonly before: number;
  readonly after: number;
  /** Where those of a layer lie in the model's file; none where they were better before. */
  readonly layers: readonly { readonly weight: string; readonly at: number; readonly groups: number }[];
}

/** What a file is known by. */
export interface FileSum {
  readonly bytes: number;
  /** In hexadecimal digits. */
  readonly sha256: string;
}

/** Raised whenever an index says more, or other things. */
export const VERSION = 3;

export interface Saved {
  readonly version: typeof VERSION;
  readonly key: string;
  readonly lengths: readonly number[];
  readonly trained: number;
  readonly blocks: BlockRecord[];
  readonly model?: ModelRecord | undefined;
  /** All files that count, by name, but for the streams. */
  readonly sums: Readonly<Record<string, FileSum>>;
}

/** What is tuned, which a state has to fit. */
export interface Planned {
  /** Blocks of the model. */
  readonly blocks: number;
  /** By name of the weight. */
  readonly layers: ReadonlyMap<string, { readonly codes: number; readonly groups: number; readonly inputs: number }>;
}

/** Tokens of a state, at most: more than any option asks for. */
const MAX_TOKENS = 2 ** 26;

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isError = (value: unknown): boolean => Number.isFinite(value) && (value as number) >= 0;
const areAll = (list: unknown, isOne: (one: Record<string, unknown>) => boolean): boolean =>
  Array.isArray(list) && list.every((one) => isObject(one) && isOne(one));

/** Whether it is an index that another version has written. */
export const isOfAnother = (value: unknown): boolean =>
  isObject(value) && Number.isSafeInteger(value.version) && value.version !== VERSION && typeof value.key === 'string';

/** Whether it is an index that this version has written. */
export function isSaved(value: unknown): value is Saved {
  if (!isObject(value)) return false;
  const { version, key, lengths, trained, blocks, model, sums } = value;
  if (version !== VERSION || typeof key !== 'string' || !areAll(blocks, isBlock) || !areSums(sums)) return false;
  if (!Array.isArray(lengths) || !lengths.every((length) => isCount(length) && length > 0)) return false;
  const isModel = model === undefined || (isObject(model) && isMoved(model));
  if (lengths.length === 0) return trained === 0 && (blocks as unknown[]).length === 0 && model === undefined;
  const tokens = lengths.reduce((sum: number, length: number) => sum + length, 0);
  return isModel && tokens <= MAX_TOKENS && isCount(trained) && trained > 0 && trained < lengths.length;
}

const isBlock = ({ before, after, layers }: Record<string, unknown>): boolean =>
  isError(before) &&
  isError(after) &&
  areAll(
    layers,
    ({ weight, at, importance, codes, groups, solver, reached }) =>
      typeof weight === 'string' &&
      [solver, reached].every((flag) => typeof flag === 'boolean') &&
      [at, importance, codes, groups].every(isCount),
  );

const isMoved = ({ steps, before, after, layers }: Record<string, unknown>): boolean =>
  isCount(steps) &&
  isError(before) &&
  isError(after) &&
  areAll(layers, ({ weight, at, groups }) => typeof weight === 'string' && isCount(at) && isCount(groups));

const areSums = (sums: unknown): boolean =>
  isObject(sums) && areAll(Object.values(sums), ({ bytes, sha256 }) => isCount(bytes) && typeof sha256 === 'string');

/** Whether layers of a state are those of a model. */
export function fits({ blocks, model }: Saved, planned: Planned): boolean {
  const all = blocks.flatMap(({ layers }) => layers);
  const names = new Set(all.map(({ weight }) => weight));
  if (blocks.length > planned.blocks || names.size < all.length) return false;
  const areMade = all.every(({ weight, importance, codes, groups }) => {
    const shape = planned.layers.get(weight);
    if (shape === undefined || (importance !== 0 && importance !== shape.inputs)) return false;
    return codes === 0 ? groups === 0 : codes === shape.codes && groups === shape.groups;
  });
  const isWhole = model === undefined || blocks.length === planned.blocks;
  const moved = model?.layers ?? [];
  return (
    areMade &&
    isWhole &&
    moved.every(({ weight, groups }) => names.has(weight) && groups === planned.layers.get(weight)!.groups)
  );
}
