import type { EncodeBlocksArgs } from '../../../../binding.js';
import { BLOCK_TYPES, type BlockType, subsOf } from '../../../matrix/block-types.js';
import { DISTANCE_TILE, LANES } from '../../../matrix/constants.js';
import { addDistances } from '../distance.js';
import { halfOfFloat, widen } from '../lanes.js';
import type { Units } from '../slices.js';
import { newParts, packBlock } from './bytes.js';
import { decodeOne } from './decode.js';
import { BlockFit, type BlockOptions } from './fit.js';
import { knowLanes, newLanes } from './lanes.js';

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

  encode(weights: Float32Array, importance: Float32Array | undefined, first: number, blocks: Uint8Array): void {
    const type = this.#type;
    const { sub, low, high, curved } = type;
    const subs = subsOf(type);
    turn(weights, first, sub, this.#weights);
    if (this.#importance !== undefined) turn(importance!, first, sub, this.#importance);
    const strip = { weights: this.#weights, importance: this.#importance, count: sub };
    const known = { least: newLanes(), most: newLanes(), count: newLanes(), sum: newLanes() };
    knowLanes(strip, known);
    const fit = new BlockFit(type, this.#options, strip, { low, high, curved }, known);
    fit.fit();
    const bytes = type.codes[0]!.bits === 8;
    fit.settle(this.#lanes, bytes ? 128 : type.bias);
    const parts = newParts(type);
    for (let lane = 0, at = 0; lane < LANES; lane += subs, at += type.bytes) {
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
  const stepBytes = (together / type.weights) * type.bytes;
  const weights = new Float32Array(DISTANCE_TILE);
  const shares = importance.length > 0 ? new Float32Array(DISTANCE_TILE) : undefined;
  const encoded = new Uint8Array((DISTANCE_TILE / type.weights) * type.bytes);
  const decoded = new Float32Array(DISTANCE_TILE);
  const encoder = new Encoder(type, args, shares !== undefined);
  const parts = newParts(type);
  const sums = [0, 0, 0];
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
    for (let at = 0, to = 0; at < count; at += together, to += stepBytes) {
      encoder.encode(weights, shares, at, encoded.subarray(to, to + stepBytes));
      if (at % (8 * together) === 0) yield;
    }
    const own = (count / type.weights) * type.bytes;
    blocks.set(encoded.subarray(0, own), (first / type.weights) * type.bytes);
    for (let at = 0, from = 0; at < count; at += type.weights, from += type.bytes)
      decodeOne(type, encoded.subarray(from, from + type.bytes), parts, decoded, at);
    addDistances(weights, decoded, count, sums);
    yield;
  }
  stats.set([...sums, args.rounds, bad]);
}
