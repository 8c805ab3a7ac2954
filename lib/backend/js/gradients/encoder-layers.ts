import type { ActivationGradientArgs, LayerNormGradientArgs } from '../../../../binding.js';
import { each, moments, normalShare } from '../encoder-layers.js';
import { Meter } from '../meter.js';
import type { Units } from '../slices.js';

// Gradients of what ../encoder-layers.ts computes.

/** With n the normed row and `u = weight * gradient`: `(u - mean(u) - n * mean(u * n))` over the deviation. */
function* layerNormGradient(args: LayerNormGradientArgs): Units {
  const { rows, cols, epsilon, x, weight, gradient, xGradient, adds } = args;
  const meter = new Meter();
  for (let r = 0; r < rows; r++) {
    const at = r * cols;
    const { mean, factor } = moments(x, at, cols, epsilon);
    let [level, pull] = [0, 0];
    for (let c = 0; c < cols; c++) {
      const own = gradient[at + c]! * weight[c]!;
      level += own / cols;
      pull += (own * (x[at + c]! - mean) * factor) / cols;
    }
    for (let c = 0; c < cols; c++) {
      const own = gradient[at + c]! * weight[c]! - level - (x[at + c]! - mean) * factor * pull;
      const change = Math.fround(factor * own);
      xGradient[at + c] = adds ? xGradient[at + c]! + change : change;
    }
    if (meter.due(6 * cols)) yield;
  }
}

const by =
  (slope: (x: number) => number) =>
  ({ x, gradient }: ActivationGradientArgs): Units =>
    each(x.length, (i) => {
      gradient[i] = gradient[i]! * slope(x[i]!);
    });

const LINEAR = 2 * Math.sqrt(2 / Math.PI);
const CUBIC = 0.044715;

/** x as far as densities of it are numbers: beyond, a product with one would be none. */
const near = (x: number) => Math.max(-40, Math.min(x, 40));

function tanhSlope(x: number): number {
  const share = 1 / (1 + Math.exp(-LINEAR * x * (1 + CUBIC * x * x)));
  return share + share * (1 - share) * LINEAR * near(x) * (1 + 3 * CUBIC * near(x) ** 2);
}

/** What `provide` is given by modules that take gradients of encoders. */
export const ENCODER_GRADIENTS = {
  layerNormGradient,
  geluGradient: by((x) => normalShare(x) + (near(x) * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI)),
  geluTanhGradient: by(tanhSlope),
  reluGradient: by((x) => (x > 0 ? 1 : 0)),
};
