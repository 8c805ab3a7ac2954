import { type BlockType, CURVE, subsOf } from '../../../matrix/block-types.js';
import { LANES } from '../../../matrix/constants.js';
import {
  type BlockKnown,
  type BlockRange,
  type BlockStrip,
  type BlockSums,
  gainOf,
  inverseOf,
  newLanes,
  sumCodes,
  toHalf,
  within,
} from './lanes.js';

// The twin of native/kernels/blocks/fit.h: the same operations in the same order, each rounded to float.

const f = Math.fround;
const SMALL = f(1e-6);

/** How blocks are found: see `EncodeBlocksArgs`. */
export interface BlockOptions {
  readonly starts: Float32Array;
  readonly steps: number;
  readonly more: number;
  readonly rounds: number;
  readonly searches: number;
}

/** Sixteen sub-blocks, side by side. */
export class BlockFit {
  readonly scale = newLanes();
  readonly minimum = newLanes();
  readonly d = newLanes();
  readonly m = newLanes();
  readonly whole = newLanes();
  readonly least = newLanes();
  readonly #gain = newLanes();
  readonly #sums: BlockSums = { codes: newLanes(), squares: newLanes(), products: newLanes() };
  readonly #subs: number;

  constructor(
    readonly type: BlockType,
    readonly options: BlockOptions,
    readonly strip: BlockStrip,
    readonly range: BlockRange,
    readonly known: BlockKnown,
  ) {
    this.#subs = subsOf(type);
  }

  /** The best of a few steps from some starts, and then some more; then as the block stores it. */
  fit(): void {
    const [bestScale, bestMinimum, bestGain] = [newLanes(), newLanes(), newLanes()];
    const { starts, steps, more } = this.options;
    for (let k = 0; k < starts.length; k += 2) {
      this.#start(starts[k]!, starts[k + 1]!);
      for (let step = 0; step < steps; step++) this.#step();
      for (let i = 0; i < LANES; i++) {
        if (k > 0 && !(this.#gain[i]! > bestGain[i]!)) continue;
        bestGain[i] = this.#gain[i]!;
        bestScale[i] = this.scale[i]!;
        bestMinimum[i] = this.minimum[i]!;
      }
    }
    this.scale.set(bestScale);
    this.minimum.set(bestMinimum);
    for (let step = 0; step < more; step++) this.#step();
    if (this.type.meta === undefined) this.#settleHalves();
    else this.#settleWhole();
  }

  #start(first: number, second: number): void {
    const { type, known, range, scale, minimum } = this;
    const held = type.meta !== undefined; // minima may not be negative
    for (let i = 0; i < LANES; i++) {
      const [least, most] = [known.least[i]!, known.most[i]!];
      if (!type.minima) {
        scale[i] = f((-least > most ? -least : most) * first) / (range.curved ? CURVE[0]! : range.low);
        minimum[i] = 0;
        continue;
      }
      const low = !held || least < 0 ? least : 0;
      const high = most > low ? most : low;
      const width = f(high - low);
      const from = f(low + f(width * first));
      const to = f(high - f(width * second));
      const under = held && from > 0 ? 0 : from;
      scale[i] = f(to - under) / range.high;
      minimum[i] = 0 - under;
    }
  }

  #sum(): void {
    sumCodes(this.strip, this.range, this.scale, this.minimum, this.#sums);
  }

  /** Codes, and the scale and minimum that fit them best. */
  #step(): void {
    this.#sum();
    const { type, known, scale, minimum } = this;
    const gain = this.#gain;
    const held = type.meta !== undefined;
    for (let i = 0; i < LANES; i++) {
      const [q, qq, qx] = [this.#sums.codes[i]!, this.#sums.squares[i]!, this.#sums.products[i]!];
      const alone = f(qx / (qq > 0 ? qq : 1));
      if (!type.minima) {
        if (qq > 0) scale[i] = alone;
        gain[i] = scale[i]! * f(f(2 * qx) - f(scale[i]! * qq));
        continue;
      }
      const [n, x, inverse] = [known.count[i]!, known.sum[i]!, known.inverse[i]!];
      const mean = f(q * inverse);
      const a = f(qq - f(mean * q));
      const b = f(qx - f(mean * x));
      if (a > f(SMALL * qq)) {
        const s = f(b / a);
        const to = f(f(s * mean) - f(x * inverse));
        scale[i] = held && to < 0 ? alone : s;
        minimum[i] = held && to < 0 ? 0 : to;
      }
      gain[i] = gainOf(scale[i]!, minimum[i]!, n, x, q, qq, qx);
    }
  }

  #weigh(): void {
    const { scale, minimum, known } = this;
    const { codes, squares, products } = this.#sums;
    for (let i = 0; i < LANES; i++)
      this.#gain[i] = gainOf(
        ...([scale[i]!, minimum[i]!, known.count[i]!, known.sum[i]!, codes[i]!, squares[i]!, products[i]!] as const),
      );
  }

  #firstWhole(): void {
    const { type, scale, minimum, d, m, whole, least } = this;
    const { low, high } = type.meta!;
    for (let first = 0; first < LANES; first += this.#subs) {
      let top = 0;
      let deepest = 0;
      for (let i = first; i < first + this.#subs; i++) {
        if (Math.abs(scale[i]!) > Math.abs(top)) top = scale[i]!;
        if (minimum[i]! > deepest) deepest = minimum[i]!;
      }
      d.fill(top / (type.minima ? high : low), first, first + this.#subs);
      m.fill(deepest / high, first, first + this.#subs);
    }
    toHalf(d);
    toHalf(m);
    for (let i = 0; i < LANES; i++) {
      whole[i] = within(f(scale[i]! * inverseOf(d[i]!)), low, high);
      least[i] = within(f(minimum[i]! * inverseOf(m[i]!)), 0, high);
    }
  }

  /** Whole minima beside their own, with the whole scales that are best for the codes. */
  #stepWhole(): void {
    const { type, known, d, m, whole, least } = this;
    const { codes, squares, products } = this.#sums;
    const { low, high } = type.meta!;
    const offsets = type.minima ? [-1, 0, 1] : [0];
    for (let i = 0; i < LANES; i++) {
      const [n, x, q, qq, qx] = [known.count[i]!, known.sum[i]!, codes[i]!, squares[i]!, products[i]!];
      const inverse = inverseOf(f(d[i]! * qq));
      const center = least[i]!;
      let best = this.#gain[i]!;
      for (const offset of offsets) {
        const aside = center + offset;
        const at = aside >= 0 && aside <= high ? aside : center;
        const b = f(m[i]! * at);
        const to = within(f(f(qx + f(b * q)) * inverse), low, high);
        const gain = gainOf(f(d[i]! * to), b, n, x, q, qq, qx);
        if (!(gain > best)) continue;
        best = gain;
        whole[i] = to;
        least[i] = at;
      }
    }
  }

  /** Sums over the sub-blocks of each block, in the place of every one of them. */
  #addOverBlocks(lanes: Float32Array): void {
    for (let width = this.#subs / 2; width >= 1; width /= 2) {
      const before = lanes.slice();
      for (let i = 0; i < LANES; i++) lanes[i] = before[i]! + before[i ^ width]!;
    }
  }

  /** `d` and `m` of blocks that are best for codes and whole numbers. */
  #refitBlocks(): void {
    const { known, whole, least, d, m } = this;
    const { codes, squares, products } = this.#sums;
    const [ss, sm, mm, sx, mx] = [newLanes(), newLanes(), newLanes(), newLanes(), newLanes()];
    for (let i = 0; i < LANES; i++) {
      const [s, b] = [whole[i]!, least[i]!];
      ss[i] = f(s * s) * squares[i]!;
      sm[i] = f(s * b) * codes[i]!;
      mm[i] = f(b * b) * known.count[i]!;
      sx[i] = s * products[i]!;
      mx[i] = b * known.sum[i]!;
    }
    for (const lanes of [ss, sm, mm, sx, mx]) this.#addOverBlocks(lanes);
    for (let i = 0; i < LANES; i++) {
      const inverse = inverseOf(mm[i]!);
      const ratio = f(sm[i]! * inverse);
      const square = f(ss[i]! - f(ratio * sm[i]!));
      if (!(square > f(SMALL * ss[i]!))) continue;
      const a = f(f(sx[i]! - f(ratio * mx[i]!)) / square);
      const b = f(f(f(sm[i]! * a) - mx[i]!) * inverse);
      if (mm[i]! > 0 && !(a > 0 && b > 0)) continue;
      d[i] = a;
      if (mm[i]! > 0) m[i] = b;
    }
    toHalf(d);
    toHalf(m);
  }

  /** Neighbours of whole scales, then of whole minima, with codes of their own: what is better stays. */
  #search(): void {
    const { type, whole, least } = this;
    const { low, high } = type.meta!;
    const own = [whole, least, this.#gain, this.#sums.codes, this.#sums.squares, this.#sums.products];
    const kept = own.map((lanes) => lanes.slice());
    for (const part of type.minima ? [0, 1] : [0]) {
      const center = kept[part]!.slice();
      for (const offset of [-1, 1]) {
        whole.set(kept[0]!);
        least.set(kept[1]!);
        for (let i = 0; i < LANES; i++) {
          const to = center[i]! + offset;
          own[part]![i] = to >= (part === 0 ? low : 0) && to <= high ? to : center[i]!;
        }
        this.#multiply();
        this.#sum();
        this.#weigh();
        for (let i = 0; i < LANES; i++) {
          if (!(this.#gain[i]! > kept[2]![i]!)) continue;
          for (const [k, lanes] of own.entries()) kept[k]![i] = lanes[i]!;
        }
      }
    }
    for (const [k, lanes] of own.entries()) lanes.set(kept[k]!);
  }

  #multiply(): void {
    for (let i = 0; i < LANES; i++) {
      this.scale[i] = this.d[i]! * this.whole[i]!;
      this.minimum[i] = this.m[i]! * this.least[i]!;
    }
  }

  /** Whole numbers, round after round: the best of each block stays. */
  #settleWhole(): void {
    this.#firstWhole();
    this.#multiply();
    const { rounds, searches } = this.options;
    if (rounds === 0) return;
    const own = [this.d, this.m, this.whole, this.least];
    const best = own.map(newLanes);
    const bestTotal = newLanes();
    for (let round = 0; round <= rounds; round++) {
      if (round > 0) {
        this.#stepWhole();
        this.#refitBlocks();
        this.#multiply();
      }
      this.#sum();
      this.#weigh();
      if (round > rounds - searches) this.#search();
      const total = this.#gain.slice();
      this.#addOverBlocks(total);
      for (let i = 0; i < LANES; i++) {
        if (round > 0 && !(total[i]! > bestTotal[i]!)) continue;
        bestTotal[i] = total[i]!;
        for (const [k, lanes] of own.entries()) best[k]![i] = lanes[i]!;
      }
    }
    for (const [k, lanes] of own.entries()) lanes.set(best[k]!);
    this.#multiply();
  }

  /** Scales of blocks that are one sub-block. */
  #settleHalves(): void {
    const { scale, minimum, d, m } = this;
    d.set(scale);
    for (let i = 0; i < LANES; i++) m[i] = 0 - minimum[i]!;
    this.whole.fill(1);
    this.least.fill(0);
    toHalf(d);
    toHalf(m);
    for (let i = 0; i < LANES; i++) {
      scale[i] = d[i]!;
      minimum[i] = 0 - m[i]!;
    }
  }
}
