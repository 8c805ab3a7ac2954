import type { LayerArgs, LinearArgs, LinearTiledArgs } from '../../../binding.js';
import { INPUT_SEGMENT, PANEL } from '../../matrix/constants.js';
import { groupBytes } from '../../matrix/panels.js';
import { roundEven } from './lanes.js';
import { readCodes } from './packing.js';
import { panelsOf } from './panels.js';
import { addBytes, addFloats, dotQuads } from './products.js';
import type { Units } from './slices.js';

/** The twin of native/core/linear.cc. With `int8` its results are the native ones to the bit; else they are sums in float64. */

const f = Math.fround;
const TINY = 2 ** -100;
const SEGMENT_QUADS = INPUT_SEGMENT / 4;
/** Most numbers of x that are kept for the next call. */
const IDLE_ELEMENTS = 2 ** 16;

/** x as products read it: each group of each row padded. As bytes each segment has a step between levels, and a sum. */
class Input {
  readonly padded: number;
  readonly segments: number;
  readonly bytes: Int8Array;
  readonly floats: Float32Array;
  /** Of bytes, by row, group and segment. */
  readonly scale: Float32Array;
  /** Of bytes: the sum over segments of scale times the sum of the bytes. Of floats: their sum. By row and group. */
  readonly total: Float64Array;

  constructor(
    readonly count: number,
    readonly size: number,
    readonly quads: number,
    readonly int8: boolean,
  ) {
    this.padded = 4 * quads;
    this.segments = Math.ceil(this.padded / INPUT_SEGMENT);
    this.bytes = new Int8Array(int8 ? count * this.padded : 0);
    this.floats = new Float32Array(int8 ? 0 : count * this.padded);
    this.scale = new Float32Array(int8 ? count * this.segments : 0);
    this.total = new Float64Array(count);
  }

  fill(x: Float32Array): void {
    for (let index = 0; index < this.count; index++) {
      if (this.int8) this.#roundGroup(x, index);
      else this.#copyGroup(x, index);
    }
  }

  /** `input_i8` of native/kernels/linear.h. */
  #roundGroup(x: Float32Array, index: number): void {
    const { size, padded, segments } = this;
    let total = 0;
    for (let segment = 0; segment < segments; segment++) {
      const at = segment * INPUT_SEGMENT;
      const sum = roundBlock(
        x,
        index * size + at,
        Math.min(INPUT_SEGMENT, size - at),
        this.bytes,
        index * padded + at,
        this.scale,
        index * segments + segment,
      );
      total = f(total + f(this.scale[index * segments + segment]! * sum));
    }
    this.total[index] = total;
  }

  #copyGroup(x: Float32Array, index: number): void {
    const { size, padded } = this;
    let total = 0;
    for (let i = 0; i < size; i++) {
      const value = x[index * size + i]!;
      this.floats[index * padded + i] = value;
      total += value;
    }
    this.total[index] = total;
  }

  /** The last one, where it has the same form and nobody uses it: calls of one layer allocate nothing for x. */
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

/** Bytes `round(x / scale)` in [-127, 127] of one segment, `scale = max |x| / 127`. Returns their sum. */
function roundBlock(
  x: Float32Array,
  from: number,
  size: number,
  to: Int8Array,
  at: number,
  scale: Float32Array,
  index: number,
): number {
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
  scale[index] = poison !== 0 ? NaN : levels === 0 ? 0 : f(most / 127);
  return sum;
}

/** Arguments are read before the first unit runs: callers may use the object again at once. */
export function linear({ layers, x, int8 }: LinearArgs): Units {
  return units(
    layers.map((layer) => ({ ...layer })),
    x,
    int8,
  );
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
  const levels = new Float64Array(PANEL);
  const dots = new Int32Array(int8 ? PANEL : 0);
  const { padded, segments } = input;
  for (let panel = 0; panel < count; panel++) {
    const first = panel * PANEL;
    const outputs = Math.min(PANEL, outFeatures - first);
    for (let row = 0; row < batch; row++) {
      sums.fill(0);
      for (let g = 0; g < groups; g++) {
        const at = panel * groups + g;
        const index = row * groups + g;
        if (int8) {
          levels.fill(0);
          for (let segment = 0, quad = 0; segment < segments; segment++, quad += SEGMENT_QUADS) {
            const some = Math.min(SEGMENT_QUADS, quads - quad);
            dotQuads(
              addBytes,
              words,
              (at * bytes + groupBytes(format, 4 * quad)) / 4,
              format,
              some,
              input.bytes,
              index * padded + 4 * quad,
              dots,
            );
            addSegment(levels, dots, input.scale[index * segments + segment]!);
          }
          addRounded(sums, levels, meta as Float32Array, at * 2 * PANEL, input.total[index]!);
        } else {
          dotQuads(addFloats, words, (at * bytes) / 4, format, quads, input.floats, index * padded, levels);
          addExact(sums, levels, meta as Float32Array, at * 2 * PANEL, input.total[index]!);
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

/** `add_segment` of native/kernels/products.h. */
function addSegment(levels: Float64Array, dots: Int32Array, scale: number): void {
  for (let j = 0; j < PANEL; j++) levels[j] = f(levels[j]! + f(f(dots[j]!) * scale));
}

/** `add_group` of native/kernels/products.h: every operation rounded. `meta` holds the scales from `at` on, then the zeros. */
function addRounded(sums: Float64Array, levels: Float64Array, meta: Float32Array, at: number, total: number): void {
  for (let j = 0; j < PANEL; j++) {
    sums[j] = f(sums[j]! + f(f(levels[j]! - f(meta[at + PANEL + j]! * total)) * meta[at + j]!));
  }
}

function addExact(sums: Float64Array, dots: Float64Array, meta: Float32Array, at: number, total: number): void {
  for (let j = 0; j < PANEL; j++) sums[j] = sums[j]! + meta[at + j]! * (dots[j]! - meta[at + PANEL + j]! * total);
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
