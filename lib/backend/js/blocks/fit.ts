import { type BlockType, CURVE, subsOf } from '../../../matrix/block-types.js';
import { LANES } from '../../../matrix/constants.js';
import { floatOfHalf, halfOfFloat } from '../lanes.js';
import { type BlockKnown, type BlockRange, type BlockStrip, type BlockSums, newLanes, tryCodes } from './lanes.js';

// The twin of native/kernels/blocks/encode.h: the same operations in the same order, floats rounded where they are floats there.

const f = Math.fround;
const MAGIC = 12582912;

/** How blocks are found: see `EncodeBlocksArgs`. */
export interface BlockOptions {
  readonly starts: Float32Array;
  readonly iterations: number;
  readonly rounds: number;
}

function toHalf(lanes: Float32Array): void {
  for (let i = 0; i < LANES; i++) lanes[i] = floatOfHalf(halfOfFloat(lanes[i]!));
}

function wholeOf(value: number, unit: number, low: number, high: number): number {
  const ratio = unit !== 0 ? f(value / unit) : 0;
  const above = ratio > low ? ratio : low;
  const within = above < high ? above : high;
  return f(f(within + MAGIC) - MAGIC);
}

/** Sixteen sub-blocks, side by side. */
export class BlockFit {
  readonly scale = newLanes();
  readonly minimum = newLanes();
  readonly d = newLanes();
  readonly m = newLanes();
  readonly whole = newLanes();
  readonly least = newLanes();
  readonly sums: BlockSums = { error: newLanes(), codes: newLanes(), squares: newLanes(), products: newLanes() };
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

  #start(share: number): void {
    const { type, known, range, scale, minimum } = this;
    const whole = type.meta !== undefined;
    for (let i = 0; i < LANES; i++) {
      if (type.minima) {
        const low = !whole || known.least[i]! < 0 ? known.least[i]! : 0;
        const high = known.most[i]! > low ? known.most[i]! : low;
        const width = f(f(high - low) * share);
        scale[i] = width / range.high;
        minimum[i] = whole && low === 0 ? 0 : f(width - f(high + low)) * 0.5;
        if (whole && minimum[i]! < 0) minimum[i] = 0;
      } else {
        const top = -known.least[i]! > known.most[i]! ? known.least[i]! : known.most[i]!;
        scale[i] = f(top * share) / (range.curved ? CURVE[0]! : range.low);
        minimum[i] = 0;
      }
    }
  }

  #refit(): void {
    const { type, known, sums, scale, minimum } = this;
    for (let i = 0; i < LANES; i++) {
      const [n, x] = [known.count[i]!, known.sum[i]!];
      const [q, qq, qx] = [sums.codes[i]!, sums.squares[i]!, sums.products[i]!];
      if (!type.minima) {
        if (qq > 0) scale[i] = qx / qq;
        continue;
      }
      const det = n * qq - q * q;
      if (!(det > 0)) continue;
      let s = (n * qx - q * x) / det;
      let b = (s * q - x) / n;
      if (type.meta !== undefined && b < 0) {
        b = 0;
        s = qx / qq;
      }
      scale[i] = s;
      minimum[i] = b;
    }
  }

  #try(codes?: Uint8Array, bias = 0): void {
    tryCodes(this.strip, this.range, this.scale, this.minimum, this.sums, codes, bias);
  }

  /** The best of some steps from some starts. */
  fit(): void {
    const [bestScale, bestMinimum, cost] = [newLanes(), newLanes(), newLanes()];
    const { starts, iterations } = this.options;
    for (let k = 0; k < starts.length; k++) {
      this.#start(starts[k]!);
      for (let step = 0; step < iterations; step++) {
        if (step > 0) this.#refit();
        this.#try();
        for (let i = 0; i < LANES; i++) {
          if ((k > 0 || step > 0) && !(this.sums.error[i]! < cost[i]!)) continue;
          cost[i] = this.sums.error[i]!;
          bestScale[i] = this.scale[i]!;
          bestMinimum[i] = this.minimum[i]!;
        }
      }
    }
    this.scale.set(bestScale);
    this.minimum.set(bestMinimum);
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
      whole[i] = wholeOf(scale[i]!, d[i]!, low, high);
      least[i] = type.minima ? wholeOf(minimum[i]!, m[i]!, 0, high) : 0;
    }
  }

  #stepWhole(): void {
    const { type, known, sums } = this;
    const { low, high } = type.meta!;
    const reach = type.minima ? 1 : 0;
    for (let i = 0; i < LANES; i++) {
      const [n, x, unit, depth] = [known.count[i]!, known.sum[i]!, this.d[i]!, this.m[i]!];
      const [q, qq, qx] = [sums.codes[i]!, sums.squares[i]!, sums.products[i]!];
      const costOf = (at: number, under: number) => {
        const a = unit * at;
        const b = depth * under;
        return a * (a * qq - 2 * qx - 2 * b * q) + b * (b * n + 2 * x);
      };
      const [scaleAt, minimumAt] = [this.whole[i]!, this.least[i]!];
      let best = costOf(scaleAt, minimumAt);
      for (let j = -reach; j <= reach; j++) {
        for (let k = -1; k <= 1; k++) {
          const [at, under] = [scaleAt + k, minimumAt + j];
          const cost = costOf(at, under);
          if (!(at >= low && at <= high && under >= 0 && under <= high && cost < best)) continue;
          best = cost;
          this.whole[i] = at;
          this.least[i] = under;
        }
      }
    }
  }

  #refitBlocks(): void {
    const { known, sums, whole, least, d, m } = this;
    for (let first = 0; first < LANES; first += this.#subs) {
      let [ss, sm, mm, sx, mx] = [0, 0, 0, 0, 0];
      for (let i = first; i < first + this.#subs; i++) {
        const [s, b] = [whole[i]!, least[i]!];
        ss += s * s * sums.squares[i]!;
        sm += s * b * sums.codes[i]!;
        mm += b * b * known.count[i]!;
        sx += s * sums.products[i]!;
        mx += b * known.sum[i]!;
      }
      let toD = d[first]!;
      let toM = m[first]!;
      const det = ss * mm - sm * sm;
      if (mm > 0 && det > 0) {
        const a = (sx * mm - mx * sm) / det;
        const b = (sm * sx - ss * mx) / det;
        if (a > 0 && b > 0) [toD, toM] = [a, b];
      } else if (!(mm > 0) && ss > 0) toD = sx / ss;
      d.fill(toD, first, first + this.#subs);
      m.fill(toM, first, first + this.#subs);
    }
    toHalf(d);
    toHalf(m);
  }

  /** Neighbours of whole scales, then of whole minima, with codes of their own: what is better stays. */
  #search(): void {
    const { type, sums, whole, least } = this;
    const { low, high } = type.meta!;
    const known: BlockSums = {
      ...{ error: sums.error.slice(), codes: sums.codes.slice() },
      ...{ squares: sums.squares.slice(), products: sums.products.slice() },
    };
    const kept = [whole.slice(), least.slice()] as const;
    const keys = ['error', 'codes', 'squares', 'products'] as const;
    for (const part of type.minima ? [0, 1] : [0]) {
      const center = kept[part]!.slice();
      for (const offset of [-1, 1]) {
        whole.set(kept[0]);
        least.set(kept[1]);
        const own = part === 0 ? whole : least;
        for (let i = 0; i < LANES; i++) {
          const to = center[i]! + offset;
          own[i] = to >= (part === 0 ? low : 0) && to <= high ? to : center[i]!;
        }
        this.#multiply();
        this.#try();
        for (let i = 0; i < LANES; i++) {
          if (!(sums.error[i]! < known.error[i]!)) continue;
          kept[0][i] = whole[i]!;
          kept[1][i] = least[i]!;
          for (const key of keys) known[key][i] = sums[key][i]!;
        }
      }
    }
    whole.set(kept[0]);
    least.set(kept[1]);
    for (const key of keys) sums[key].set(known[key]);
  }

  #multiply(): void {
    for (let i = 0; i < LANES; i++) {
      this.scale[i] = this.d[i]! * this.whole[i]!;
      this.minimum[i] = this.m[i]! * this.least[i]!;
    }
  }

  #settleWhole(): void {
    this.#firstWhole();
    const parts = [this.d, this.m, this.whole, this.least];
    const best = parts.map((lanes) => lanes.slice());
    const cost = new Float64Array(LANES);
    for (let round = 0; round <= this.options.rounds; round++) {
      if (round > 0) {
        this.#stepWhole();
        this.#refitBlocks();
      }
      this.#multiply();
      this.#try();
      this.#search();
      for (let first = 0; first < LANES; first += this.#subs) {
        const end = first + this.#subs;
        let total = 0;
        for (let i = first; i < end; i++) total += this.sums.error[i]!;
        if (round > 0 && !(total < cost[first]!)) continue;
        cost[first] = total;
        for (const [k, lanes] of parts.entries()) best[k]!.set(lanes.subarray(first, end), first);
      }
    }
    for (const [k, lanes] of parts.entries()) lanes.set(best[k]!);
    this.#multiply();
  }

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

  /** Scales and minima as the block stores them, and the codes. */
  settle(codes: Uint8Array, bias: number): void {
    if (this.type.meta === undefined) this.#settleHalves();
    else this.#settleWhole();
    this.#try(codes, bias);
  }
}
