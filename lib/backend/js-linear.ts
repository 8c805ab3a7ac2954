import type { LayerArgs, LinearArgs, LinearTiledArgs } from '../../binding.js';
import { PANEL } from '../panel.js';
import { panelsOf, readCodes, unpackPanel } from './js-panels.js';
import { roundEven } from './lanes.js';

/** The twin of native/core/linear.cc. With `int8` its results are the native ones to the bit; else they are sums in float64. */

type Units = Generator<void, void, void>;

const f = Math.fround;
const TINY = 2 ** -100;

/** x as products read it: each group of each row padded, and its sum; as bytes also the step between levels. */
interface Input {
  readonly values: Int8Array | Float32Array;
  readonly scale: Float32Array;
  readonly sum: Float64Array;
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

function prepare(x: Float32Array, batch: number, groups: number, size: number, padded: number, int8: boolean): Input {
  const count = batch * groups;
  const input = {
    values: int8 ? new Int8Array(count * padded) : new Float32Array(count * padded),
    scale: new Float32Array(int8 ? count : 0),
    sum: new Float64Array(count),
  };
  for (let index = 0; index < count; index++) {
    if (int8) {
      quantizeGroup(x, index * size, size, input.values as Int8Array, index * padded, input, index);
    } else {
      let sum = 0;
      for (let i = 0; i < size; i++) sum += x[index * size + i]!;
      input.values.set(x.subarray(index * size, (index + 1) * size), index * padded);
      input.sum[index] = sum;
    }
  }
  return input;
}

/** Two functions of one body: engines make fast code for loops over one type of array. */
function dotBytes(codes: Uint8Array, c: number, x: Int8Array, i: number, length: number): number {
  let a = 0;
  let b = 0;
  for (const end = i + length; i < end; i += 4, c += 4) {
    a = (a + Math.imul(codes[c]!, x[i]!) + Math.imul(codes[c + 1]!, x[i + 1]!)) | 0;
    b = (b + Math.imul(codes[c + 2]!, x[i + 2]!) + Math.imul(codes[c + 3]!, x[i + 3]!)) | 0;
  }
  return (a + b) | 0;
}

function dotFloats(codes: Uint8Array, c: number, x: Float32Array, i: number, length: number): number {
  let a = 0;
  let b = 0;
  for (const end = i + length; i < end; i += 4, c += 4) {
    a += codes[c]! * x[i]! + codes[c + 1]! * x[i + 1]!;
    b += codes[c + 2]! * x[i + 2]! + codes[c + 3]! * x[i + 3]!;
  }
  return a + b;
}

/** Arguments are read before the first unit runs: callers may use the object again at once. */
export function linear({ layers, x, int8 }: LinearArgs): Units {
  return units(layers.map((layer) => ({ ...layer })), x, int8);
}

function* units(layers: readonly LayerArgs[], x: Float32Array, int8: boolean): Units {
  for (const layer of layers) yield* oneLayer(layer, x, int8);
}

function* oneLayer({ shape, codes: panels, meta, bias, out }: LayerArgs, x: Float32Array, int8: boolean): Units {
  const { outFeatures, inFeatures, groupSize, format, quads, groups, count, bytes } = panelsOf(shape);
  const batch = x.length / inFeatures;
  const padded = 4 * quads;
  const { values, scale: xScale, sum: xSum } = prepare(x, batch, groups, groupSize, padded, int8);
  yield;
  const codes = new Uint8Array(PANEL * padded);
  const sums = new Float64Array(batch * PANEL);
  for (let panel = 0; panel < count; panel++) {
    const first = panel * PANEL;
    const outputs = Math.min(PANEL, outFeatures - first);
    sums.fill(0);
    for (let g = 0; g < groups; g++) {
      const at = panel * groups + g;
      unpackPanel(panels, at * bytes, format, quads, codes);
      for (let row = 0; row < batch; row++) {
        const index = row * groups + g;
        const from = index * padded;
        const total = xSum[index]!;
        for (let j = 0; j < outputs; j++) {
          const scale = meta[at * 2 * PANEL + j]!;
          const zero = meta[(at * 2 + 1) * PANEL + j]!;
          const to = row * PANEL + j;
          if (int8) {
            const dot = f(dotBytes(codes, j * padded, values as Int8Array, from, padded));
            sums[to] = f(sums[to]! + f(f(f(dot - f(zero * total)) * scale) * xScale[index]!));
          } else {
            const dot = dotFloats(codes, j * padded, values as Float32Array, from, padded);
            sums[to] = sums[to]! + scale * (dot - zero * total);
          }
        }
        if (row % 16 === 15) yield;
      }
      if (g % 16 === 15) yield;
    }
    writePanel(sums, bias, out, outFeatures, first, outputs, batch);
    yield;
  }
}

function writePanel(
  sums: Float64Array,
  bias: Float32Array,
  out: Float32Array,
  outFeatures: number,
  first: number,
  outputs: number,
  batch: number,
): void {
  for (let row = 0; row < batch; row++) {
    for (let j = 0; j < outputs; j++) {
      const sum = f(sums[row * PANEL + j]!);
      out[row * outFeatures + first + j] = bias.length === 0 ? sum : sum + bias[first + j]!;
    }
  }
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
