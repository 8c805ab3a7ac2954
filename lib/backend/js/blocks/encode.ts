import type { EncodeBlocksArgs } from '../../../../binding.js';
import { BLOCK_TYPES, type BlockType, subsOf } from '../../../matrix/block-types.js';
import { DISTANCE_TILE, LANES } from '../../../matrix/constants.js';
import { halfOfFloat, widen } from '../lanes.js';
import type { Units } from '../slices.js';
import { newParts, packBlock } from './bytes.js';
import { BlockFit, type BlockOptions } from './fit.js';
import { knowLanes, newLanes, placeCodes } from './lanes.js';

// The twin of the encoder in native/core/blocks.cc.

/** `[LANES][sub]` to `[sub][LANES]`. */
function turn(from: Float32Array, first: number, sub: number, to: Float32Array): void {
  for (let lane = 0; lane < LANES; lane++)
    for (let i = 0; i < sub; i++) to[i * LANES + lane] = from[first + lane * sub + i]!;
}

/** Encodes sixteen sub-blocks after another. */
class Encoder {
  readonly #type: BlockType;
  readonly #options: BlockOptions;
  readonly #weights: Float32Array;
  readonly #importance: Float32Array | undefined;
  readonly #lanes: Uint8Array;

  constructor(type: BlockType, options: BlockOptions, weighted: boolean) {
    this.#type = type;
    this.#options = options;
    this.#weights = new Float32Array(type.sub * LANES);
    this.#importance = weighted ? new Float32Array(type.sub * LANES) : undefined;
    this.#lanes = new Uint8Array(type.sub * LANES);
  }

  /** Writes `blocks`, as many as there is room for, and adds errors to `totals`. */
  encode(
    weights: Float32Array,
    importance: Float32Array | undefined,
    first: number,
    blocks: Uint8Array,
    totals: Float64Array,
  ): void {
    const type = this.#type;
    const { sub, low, high, curved, minima } = type;
    const subs = subsOf(type);
    turn(weights, first, sub, this.#weights);
    if (this.#importance !== undefined) turn(importance!, first, sub, this.#importance);
    const strip = { weights: this.#weights, importance: this.#importance, count: sub };
    const known = {
      ...{ least: newLanes(), most: newLanes(), count: newLanes(), inverse: newLanes() },
      sum: newLanes(),
    };
    knowLanes(strip, known);
    const range = { low, high, curved, minima };
    const fit = new BlockFit(type, this.#options, strip, range, known);
    fit.fit();
    const bytes = type.codes[0]!.bits === 8;
    placeCodes(strip, range, fit.scale, fit.minimum, bytes ? 128 : type.bias, this.#lanes, totals);
    const parts = newParts(type);
    for (let lane = 0, at = 0; at < blocks.length; lane += subs, at += type.bytes) {
      for (let i = 0; i < type.weights; i++) {
        const [own, place] = [lane + Math.floor(i / sub), i % sub];
        parts.codes[i] = this.#lanes[place * LANES + own]! ^ (bytes ? 128 : 0);
      }
      for (let i = 0; i < subs; i++) {
        parts.metas[i] = fit.whole[lane + i]!;
        parts.metas[subs + i] = fit.least[lane + i]!;
      }
      parts.d = halfOfFloat(fit.d[lane]!);
      parts.m = halfOfFloat(fit.m[lane]!);
      packBlock(type, parts, blocks.subarray(at, at + type.bytes));
    }
  }
}

export function* encodeBlocks(args: EncodeBlocksArgs): Units {
  const { rows, cols, importance, blocks, stats } = args;
  const type = BLOCK_TYPES[args.type]!;
  const total = rows * cols;
  const together = LANES * type.sub;
  const bytesOf = (count: number) => (count / type.weights) * type.bytes;
  const weights = new Float32Array(DISTANCE_TILE);
  const shares = importance.length > 0 ? new Float32Array(DISTANCE_TILE) : undefined;
  const encoder = new Encoder(type, args, shares !== undefined);
  const sums = new Float64Array(3);
  let bad = -1;
  for (let first = 0; first < total; first += DISTANCE_TILE) {
    const count = Math.min(DISTANCE_TILE, total - first);
    widen(args.weights, args.dtype, first, count, weights);
    const wrong = weights.subarray(0, count).findIndex((w) => !Number.isFinite(w));
    if (wrong >= 0) {
      bad = first + wrong;
      break;
    }
    weights.fill(0, count);
    if (shares !== undefined) {
      for (let i = 0; i < count; i++) shares[i] = importance[(first + i) % cols]!;
      shares.fill(0, count);
    }
    const own = new Float64Array(3);
    for (let at = 0; at < count; at += together) {
      const to = bytesOf(first + at);
      const end = to + bytesOf(Math.min(together, count - at));
      encoder.encode(weights, shares, at, blocks.subarray(to, end), own);
      if (at % (8 * together) === 0) yield;
    }
    for (let k = 0; k < 3; k++) sums[k]! += own[k]!;
    yield;
  }
  stats.set([...sums, args.rounds, bad]);
}
