import { QuantizedLinear } from '../../compute/linear.js';
import { quantize } from '../../compute/quantize.js';
import type { RunOptions } from '../../matrix/weight.js';
import { allocating } from '../../messages/allocating.js';
import { quote } from '../../messages/text.js';
import type { TokenIds } from '../text/ids.js';
import { expandRows } from './panel-rows.js';

/** What each token is to the first block: `[vocabSize, hiddenSize]`. */
export interface Embedding {
  /** Bytes that it takes in memory. */
  readonly bytes: number;
  /** Writes the rows of `ids` to `out`, `[ids.length, hiddenSize]`. */
  read(ids: TokenIds, out: Float32Array): void;
}

/** A table in float32. */
export class DenseTable implements Embedding {
  readonly weights: Float32Array;
  readonly #width: number;
  readonly #factor: number;

  /** @param factor What rows are multiplied by. */
  constructor(weights: Float32Array, width: number, factor: number) {
    this.weights = weights;
    this.#width = width;
    this.#factor = factor;
  }

  get bytes(): number {
    return this.weights.byteLength;
  }

  read(ids: TokenIds, out: Float32Array): void {
    const width = this.#width;
    for (let row = 0; row < ids.length; row++)
      out.set(this.weights.subarray(ids[row]! * width, (ids[row]! + 1) * width), row * width);
    scaleRows(out, this.#factor);
  }
}

/** A table whose codes a layer has, which may be the head. */
export class CodedTable implements Embedding {
  readonly layer: QuantizedLinear;

  readonly #factor: number;

  /**
   * @param layer On panels (`path` is `'fused'`): of others no single row can be read.
   * @param factor What rows are multiplied by.
   */
  constructor(layer: QuantizedLinear, factor: number) {
    this.layer = layer;
    this.#factor = factor;
  }

  get bytes(): number {
    return this.layer.memoryUsage;
  }

  read(ids: TokenIds, out: Float32Array): void {
    expandRows(this.layer.panels!, ids, out);
    scaleRows(out, this.#factor);
  }
}

/** Multiplies embeddings, where that changes anything. */
export function scaleRows(rows: Float32Array, factor: number): void {
  if (factor !== 1) for (let i = 0; i < rows.length; i++) rows[i] = rows[i]! * factor;
}

/** Weights of a group of a table that is quantized here, as far as they divide its width. */
const GROUP = 64;

/** Below this, scales take more memory than is saved. */
const LEAST_GROUP = 16;

/** Weights that are in float32 at once while a table is quantized. */
const PIECE = 1 << 21;

/** Weights of a group of a table of this width; undefined where none divides it. */
export function groupOf(width: number): number | undefined {
  for (let group = GROUP; group >= LEAST_GROUP; group--) if (width % group === 0) return group;
  return undefined;
}

/**
 * A table of tokens, or a layer, in 8 bits. It is read and quantized in pieces: the whole of it may be gigabytes of float32.
 *
 * @param read Writes rows `[from, to)` to `out`.
 */
export async function quantizeTable(
  name: string,
  [rows, width]: readonly [rows: number, width: number],
  group: number,
  read: (from: number, to: number, out: Float32Array) => Promise<void>,
  {
    activations,
    bias,
    signal,
    threads,
  }: RunOptions & { readonly activations: 'float32' | 'int8'; readonly bias?: Float32Array | undefined },
): Promise<QuantizedLinear> {
  const run = { signal, threads };
  const groups = (rows * width) / group;
  const [packed, scale, zero] = allocating(quote(name), () => [
    new Uint8Array(rows * width),
    new Float32Array(groups),
    new Float32Array(groups),
  ]);
  const step = Math.max(1, Math.floor(PIECE / width));
  const floats = new Float32Array(Math.min(step, rows) * width);
  for (let from = 0; from < rows; from += step) {
    const to = Math.min(from + step, rows);
    const data = floats.subarray(0, (to - from) * width);
    await read(from, to, data);
    // With so many codes the extremes of a group are as good a range as one that is searched for.
    const config = { nbits: 8, groupSize: group, solver: 'minmax' } as const;
    const q = await quantize({ data, dtype: 'float32', shape: [to - from, width] }, config, run);
    packed.set(q.packed as Uint8Array, from * width); // a byte a code, row after row
    scale.set(q.scale, (from * width) / group);
    zero.set(q.zero, (from * width) / group);
  }
  const q = {
    nbits: 8,
    groupSize: group,
    axis: 1,
    shape: [rows, width],
    packing: '8bit_u8',
    packed,
    scale,
    zero,
  } as const;
  return QuantizedLinear.create(q, { activations, bias, ...run });
}
