import type {
  ClearArgs,
  ColumnsGradientArgs,
  GegluGradientArgs,
  RmsNormGradientArgs,
  ScaleGradientArgs,
  SwigluGradientArgs,
} from '../../../../binding.js';
import { Meter } from '../meter.js';
import type { Units } from '../slices.js';
import { attentionGradient } from './attention.js';

// Gradients of what layers.ts computes, likewise: sums in float64, results rounded to float32.

/** With `f = 1 / sqrt(mean(x^2) + epsilon)` and `u = weight * gradient`: `f * u - x * f^3 * mean(x * u)`. */
function* rmsNormGradient({ rows, cols, epsilon, x, weight, gradient, xGradient, adds }: RmsNormGradientArgs): Units {
  const meter = new Meter();
  for (let r = 0; r < rows; r++) {
    const at = r * cols;
    let [squares, products] = [0, 0];
    for (let c = 0; c < cols; c++) {
      squares += x[at + c]! * x[at + c]!;
      products += x[at + c]! * gradient[at + c]! * weight[c]!;
    }
    const factor = 1 / Math.sqrt(squares / cols + epsilon);
    const pull = (factor ** 3 * products) / cols;
    for (let c = 0; c < cols; c++) {
      const change = Math.fround(factor * gradient[at + c]! * weight[c]! - pull * x[at + c]!);
      xGradient[at + c] = adds ? xGradient[at + c]! + change : change;
    }
    if (meter.due(4 * cols)) yield;
  }
}

/** The gradient of `gate * sigmoid(u) * up`, where u is a function of the gate. */
function* gated(
  { gate, up, gradient, gateGradient, upGradient }: SwigluGradientArgs,
  exponent: (gate: number) => number,
  slope: (gate: number) => number,
): Units {
  const meter = new Meter();
  for (let i = 0; i < gate.length; i++) {
    const g = gate[i]!;
    const share = 1 / (1 + Math.exp(-exponent(g)));
    // As g grows without bounds below, e^-u is infinite and the share 0: nothing is left of either.
    const rest = share === 0 ? 0 : share * (1 - share);
    upGradient[i] = gradient[i]! * g * share;
    gateGradient[i] = gradient[i]! * up[i]! * (share + (rest === 0 ? 0 : g * rest * slope(g)));
    if (i % 64 === 63 && meter.due(64 * 24)) yield;
  }
}

const swigluGradient = (args: SwigluGradientArgs): Units =>
  gated(
    args,
    (g) => g,
    () => 1,
  );

/** `2 sqrt(2 / pi)` */
const LINEAR = 2 * Math.sqrt(2 / Math.PI);
const CUBIC = 0.044715;

const gegluGradient = (args: GegluGradientArgs): Units =>
  gated(
    args,
    (g) => LINEAR * g * (1 + CUBIC * g * g),
    (g) => LINEAR * (1 + 3 * CUBIC * g * g),
  );

function* scaleGradient({ factor, softcap, out, gradient }: ScaleGradientArgs): Units {
  const meter = new Meter();
  for (let i = 0; i < out.length; i++) {
    const bent = out[i]! / softcap;
    gradient[i] = gradient[i]! * factor * (1 - bent * bent);
    if (i % 64 === 63 && meter.due(64 * 4)) yield;
  }
}

function* columnsGradient({ rows, width, from, cols, gradient, xGradient }: ColumnsGradientArgs): Units {
  const meter = new Meter();
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const at = r * width + from + c;
      xGradient[at] = xGradient[at]! + gradient[r * cols + c]!;
    }
    if (meter.due(cols)) yield;
  }
}

function* clear({ x }: ClearArgs): Units {
  const meter = new Meter();
  const some = 4096;
  for (let i = 0; i < x.length; i += some) {
    x.fill(0, i, i + some);
    if (meter.due(some / 8)) yield;
  }
}

/** What `provide` is given by modules that take gradients of layers. */
export const GRADIENTS = {
  rmsNormGradient,
  attentionGradient,
  swigluGradient,
  gegluGradient,
  scaleGradient,
  columnsGradient,
  clear,
};
