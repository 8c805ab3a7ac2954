import type { ColumnsArgs, GegluArgs, RmsNormArgs, RopeArgs, ScaleArgs, SwigluArgs } from '../../../binding.js';
import { attention } from './attention.js';
import { DENSE, dot } from './dense.js';
import { Meter } from './meter.js';
import type { Units } from './slices.js';

// The operations of language models in plain JavaScript: sums in float64, results rounded to float32. Native kernels add in
// another order and round as they go, so the two agree to a few units of float32, not to the bit.

function* rmsNorm({ rows, cols, epsilon, x, weight, out }: RmsNormArgs): Units {
  const meter = new Meter();
  for (let r = 0; r < rows; r++) {
    const at = r * cols;
    const factor = 1 / Math.sqrt(dot(x, at, x, at, cols) / cols + epsilon);
    for (let c = 0; c < cols; c++) out[at + c] = x[at + c]! * factor * weight[c]!;
    if (meter.due(2 * cols)) yield;
  }
}

function* rope({ rows, heads, headDim, turned, cos, sin, x }: RopeArgs): Units {
  const meter = new Meter();
  const half = turned / 2;
  for (let r = 0; r < rows; r++) {
    for (let h = 0; h < heads; h++) {
      const at = (r * heads + h) * headDim;
      for (let i = 0; i < half; i++) {
        const [c, s] = [cos[r * half + i]!, sin[r * half + i]!];
        const [a, b] = [x[at + i]!, x[at + half + i]!];
        x[at + i] = a * c - b * s;
        x[at + half + i] = b * c + a * s;
      }
    }
    if (meter.due(heads * headDim)) yield;
  }
}

function* swiglu({ gate, up, out }: SwigluArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < out.length; i++) {
    const g = gate[i]!;
    out[i] = (g / (1 + Math.exp(-g))) * up[i]!;
    if (i % 64 === 63 && meter.due(64 * 16)) yield;
  }
}

function* geglu({ gate, up, out }: GegluArgs): Units {
  const meter = new Meter();
  const slope = 2 * Math.sqrt(2 / Math.PI);
  for (let i = 0; i < out.length; i++) {
    const g = gate[i]!;
    out[i] = (g / (1 + Math.exp(-slope * g * (1 + 0.044715 * g * g)))) * up[i]!;
    if (i % 64 === 63 && meter.due(64 * 16)) yield;
  }
}

function* scale({ factor, softcap, x }: ScaleArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < x.length; i++) {
    const scaled = x[i]! * factor;
    x[i] = softcap > 0 ? softcap * Math.tanh(scaled / softcap) : scaled;
    if (i % 64 === 63 && meter.due(64 * (softcap > 0 ? 16 : 1))) yield;
  }
}

function* columns({ rows, width, from, cols, x, out }: ColumnsArgs): Units {
  const meter = new Meter();
  for (let r = 0; r < rows; r++) {
    out.set(x.subarray(r * width + from, r * width + from + cols), r * cols);
    if (meter.due(cols)) yield;
  }
}

/** What `provide` is given by modules that run layers of models. */
export const LAYERS = { ...DENSE, rmsNorm, rope, attention, swiglu, geglu, scale, columns };
