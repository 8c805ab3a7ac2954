import type { LayerArgs, LinearArgs, LinearTiledArgs } from '../../binding.js';
import { PANEL } from '../panel.js';
import { panelsOf, readCodes } from './js-panels.js';
import { addBytes, addFloats, dotGroup } from './js-products.js';
import { roundEven } from './lanes.js';

/** The twin of native/core/linear.cc. With `int8` its results are the native ones to the bit; else they are sums in float64. */

type Units = Generator<void, void, void>;

const f = Math.fround;
const TINY = 2 ** -100;
/** Most numbers of x that are kept for the next call. */
const IDLE_ELEMENTS = 2 ** 16;

/** x as products read it: each group of each row padded, and its sum; as bytes also the step between levels. */
class Input {
  readonly padded: number;
  readonly bytes: Int8Array;
  readonly floats: Float32Array;
  readonly scale: Float32Array;
  readonly sum: Float64Array;

  constructor(
    readonly count: number,
    readonly size: number,
    readonly quads: number,
    readonly int8: boolean,
  ) {
    this.padded = 4 * quads;
    this.bytes = new Int8Array(int8 ? count * this.padded : 0);
    this.floats = new Float32Array(int8 ? 0 : count * this.padded);
    this.scale = new Float32Array(int8 ? count : 0);
    this.sum = new Float64Array(count);
  }

  fill(x: Float32Array): void {
    const { count, size, padded } = this;
    for (let index = 0; index < count; index++) {
      if (this.int8) {
        quantizeGroup(x, index * size, size, this.bytes, index * padded, this, index);
      } else {
        let sum = 0;
        for (let i = 0; i < size; i++) {
          const value = x[index * size + i]!;
          this.floats[index * padded + i] = value;
          sum += value;
        }
        this.sum[index] = sum;
      }
    }
  }

  /** The last one, where it has the same form and nobody uses it: calls of one layer allocate nothing. */
  static take(count: number, size: number, quads: number, int8: boolean): Input {
    const last = Input.#idle;
    Input.#idle = undefined;
    const fits = last && last.count === count && last.size === size && last.quads === quads && last.int8 === int8;
    return fits ? last : new Input(count, size, quads, int8);
  }
  give(): void {
    if (this.count * this.padded <= IDLE_ELEMENTS) Input.#idle = this;
  }
  static #idle: Input | undefined;
}

/** `input_i8` of native/kernels/linear.h: round(x / scale) in [-127, 127], scale = max |x| / 127. */
function quantizeGroup(x: Float32Array, from: number, size: number, to: Int8Array, at: number, input: Input, index: number): void {
  let most = 0;
  let poison = 0;
  for (let i = 0; i < size; i++) {
    const magnitude = Math.abs(x[from + i]!);
    poison += magnitude * 0; // NaN where x is not finite
    if (magnitude > most) most = magnitude;
  }
  const levels = poison === 0 && most > TINY ? f(127 / most) : 0;
  let sum = 0;
  for (let i = 0; i < size; i++) {
    const q = levels === 0 ? 0 : roundEven(f(x[from + i]! * levels));
    to[at + i] = q;
    sum += q;
  }
  input.scale[index] = poison !== 0 ? NaN : levels === 0 ? 0 : f(most / 127);
  input.sum[index] = sum;
}

/** Arguments are read before the first unit runs: callers may use the object again at once. */
export function linear({ layers, x, int8 }: LinearArgs): Units {
  return units(layers.map((layer) => ({ ...layer })), x, int8);
}

function* units(layers: readonly LayerArgs[], x: Float32Array, int8: boolean): Units {
  for (const layer of layers) yield* oneLayer(layer, x, int8);
}

function* oneLayer({ shape, codes, meta, bias, out }: LayerArgs, x: Float32Array, int8: boolean): Units {
  const { outFeatures, inFeatures, groupSize, format, quads, groups, count, bytes } = panelsOf(shape);
  const batch = x.length / inFeatures;
  const input = Input.take(batch * groups, groupSize, quads, int8);
  input.fill(x);
  yield;
  const words = new Uint32Array(codes.buffer, codes.byteOffset, codes.length / 4);
  const sums = new Float64Array(PANEL);
  const integers = new Int32Array(int8 ? PANEL : 0);
  const floats = new Float64Array(int8 ? 0 : PANEL);
  for (let panel = 0; panel < count; panel++) {
    const first = panel * PANEL;
    const outputs = Math.min(PANEL, outFeatures - first);
    for (let row = 0; row < batch; row++) {
      sums.fill(0);
      for (let g = 0; g < groups; g++) {
        const at = panel * groups + g;
        const index = row * groups + g;
        const from = index * input.padded;
        if (int8) {
          dotGroup(addBytes, words, (at * bytes) / 4, format, quads, input.bytes, from, integers);
          addIntegers(sums, integers, meta, at * 2 * PANEL, input.scale[index]!, input.sum[index]!);
        } else {
          dotGroup(addFloats, words, (at * bytes) / 4, format, quads, input.floats, from, floats);
          addReals(sums, floats, meta, at * 2 * PANEL, input.sum[index]!);
        }
        if (g % 16 === 15) yield;
      }
      for (let j = 0, to = row * outFeatures + first; j < outputs; j++) {
        const sum = f(sums[j]!);
        out[to + j] = bias.length === 0 ? sum : sum + bias[first + j]!;
      }
    }
    yield;
  }
  input.give();
}

/** `add_group_i8` of native/kernels/products.h: every operation rounded. `meta` holds the scales from `at` on, then the zeros. */
function addIntegers(sums: Float64Array, dots: Int32Array, meta: Float32Array, at: number, xScale: number, xSum: number): void {
  for (let j = 0; j < PANEL; j++) {
    const levels = f(f(dots[j]!) - f(meta[at + PANEL + j]! * xSum));
    sums[j] = f(sums[j]! + f(f(levels * meta[at + j]!) * xScale));
  }
}

function addReals(sums: Float64Array, dots: Float64Array, meta: Float32Array, at: number, xSum: number): void {
  for (let j = 0; j < PANEL; j++) sums[j] = sums[j]! + meta[at + j]! * (dots[j]! - meta[at + PANEL + j]! * xSum);
}

/** A row of the matrix at a time: dequantized, then multiplied with every row of x. */
export function linearTiled(args: LinearTiledArgs): Units {
  return tiledUnits({ ...args });
}

function* tiledUnits(args: LinearTiledArgs): Units {
  const { packed, format, cols, step, axis, scale, zero, inFeatures, outFeatures, bias, x, out } = args;
  const codes = new Uint8Array(inFeatures);
  const weights = new Float32Array(inFeatures);
  const batch = x.length / inFeatures;
  for (let o = 0; o < outFeatures; o++) {
    for (let i = 0; i < inFeatures; ) {
      const row = Math.floor((o * inFeatures + i) / cols);
      const col = (o * inFeatures + i) % cols;
      const count = Math.min(inFeatures - i, cols - col);
      readCodes(packed, format, cols, step, row, col, count, codes, i);
      for (let c = 0; c < count; c++) {
        const group = axis === 1 ? row : col + c;
        weights[i + c] = f(f(codes[i + c]! - zero[group]!) * scale[group]!);
      }
      i += count;
    }
    for (let row = 0; row < batch; row++) {
      let sum = 0;
      for (let i = 0, at = row * inFeatures; i < inFeatures; i++) sum += weights[i]! * x[at + i]!;
      const y = f(sum);
      out[row * outFeatures + o] = bias.length === 0 ? y : y + bias[o]!;
      if (row % 16 === 15) yield;
    }
    yield;
  }
}
