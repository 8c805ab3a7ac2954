import type { Operations, Step } from '../../../binding.js';
import { type Floats, overlap } from './spans.js';
import type { Differentiable, DifferentiableStep } from './uses.js';

/** What the gradient of a step is made with. */
export interface Turn {
  /** Of what the step wrote. Where it wrote over what it read, the gradient of that comes to be in the same place. */
  readonly gradient: Floats;
  /** Whether the gradient of what it read is wanted. */
  wants(array: Floats): boolean;
  /** What an array held before the step ran, and after. */
  before(array: Floats): Floats;
  after(array: Floats): Floats;
  /** Where the gradient of an array is to be added; without one so far `adds` is false, and anything is there. */
  target(array: Floats): { readonly to: Floats; readonly adds: boolean };
  /** The same, as zeros where there is none. */
  sum(array: Floats): Floats;
  /** Calls `write` with where the gradient of an array is to be written; what there is is added to it. */
  into(array: Floats, write: (to: Floats) => void): void;
  /** Where the gradient of weights is to be written; undefined: it is not wanted. */
  ofWeights(weights: Floats): Floats | undefined;
  /** As `Plan.add`. */
  add(work: number, make: (threads: number) => Step): void;
}

type Rule<K extends keyof Operations> = (args: Operations[K], turn: Turn) => void;

const NONE = new Float32Array(0);

const gated =
  (operation: 'swigluGradient' | 'gegluGradient') =>
  ({ gate, up }: Operations['swiglu'], { gradient, before, into, add }: Turn): void => {
    const arrays = { gate: before(gate), up: before(up), gradient };
    into(gate, (gateGradient) =>
      into(up, (upGradient) =>
        add(24 * gate.length, (threads) => ({ operation, args: { ...arrays, gateGradient, upGradient, threads } })),
      ),
    );
  };

const norm =
  (operation: 'rmsNormGradient' | 'layerNormGradient') =>
  ({ rows, cols, epsilon, x, weight, out }: Operations['rmsNorm'], { gradient, wants, before, target, add }: Turn) => {
    if (!wants(x)) return;
    const { to: xGradient, adds } = overlap(x, out) ? { to: gradient, adds: false } : target(x);
    const args = { rows, cols, epsilon, x: before(x), weight, gradient, xGradient, adds };
    add(4 * x.length, (threads) => ({ operation, args: { ...args, threads } }));
  };

const activation =
  (operation: 'geluGradient' | 'geluTanhGradient' | 'reluGradient') =>
  ({ x }: Operations['gelu'], { gradient, before, add }: Turn): void => {
    const args = { x: before(x), gradient };
    add(32 * x.length, (threads) => ({ operation, args: { ...args, threads } }));
  };

/** From the gradient of what a step wrote to the gradients of what it read. */
const RULES: { readonly [K in Differentiable]: Rule<K> } = {
  rmsNorm: norm('rmsNormGradient'),
  layerNorm: norm('layerNormGradient'),
  gelu: activation('geluGradient'),
  geluTanh: activation('geluTanhGradient'),
  relu: activation('reluGradient'),
  denseLinear({ batch, inFeatures, outFeatures, x, weights }, { gradient, wants, before, sum, ofWeights, add }) {
    const weightGradient = ofWeights(weights) ?? NONE;
    const xGradient = wants(x) ? sum(x) : NONE;
    const args = { batch, inFeatures, outFeatures, weights, gradient, xGradient, weightGradient };
    const kept = weightGradient.length > 0 ? before(x) : x;
    add(2 * batch * inFeatures * outFeatures, (threads) => ({
      operation: 'denseLinearGradient',
      args: { ...args, x: kept, threads },
    }));
  },
  columns({ rows, width, from, cols, x }, { gradient, wants, sum, add }) {
    if (!wants(x)) return;
    const args = { rows, width, from, cols, gradient, xGradient: sum(x) };
    add(gradient.length, (threads) => ({ operation: 'columnsGradient', args: { ...args, threads } }));
  },
  // The transpose of a turn is the turn back.
  rope({ sin, ...args }, { gradient, add }) {
    const back = sin.map((value) => -value);
    add(2 * gradient.length, (threads) => ({
      operation: 'rope',
      args: { ...args, sin: back, x: gradient, threads },
    }));
  },
  attention(args, { gradient, before, into, add }) {
    const { rows, heads, kvHeads, headDim, window, scale, softcap, positions, q, k, v } = args;
    // Of encoders all rows are where the last one is, and see all: encoder-block.ts.
    const causal = positions.some((position) => position !== rows - 1);
    const shape = { rows, heads, kvHeads, headDim, window, causal, scale, softcap };
    const arrays = { q: before(q), k: before(k), v: before(v), gradient };
    into(q, (qGradient) =>
      into(k, (kGradient) =>
        into(v, (vGradient) =>
          add(3 * rows * rows * heads * headDim, (threads) => ({
            operation: 'attentionGradient',
            args: { ...shape, ...arrays, qGradient, kGradient, vGradient, threads },
          })),
        ),
      ),
    );
  },
  swiglu: gated('swigluGradient'),
  geglu: gated('gegluGradient'),
  scale({ factor, softcap, x }, { gradient, after, add }) {
    if (softcap === 0) {
      add(gradient.length, (threads) => ({ operation: 'scale', args: { factor, softcap, x: gradient, threads } }));
      return;
    }
    const args = { factor, softcap, out: after(x), gradient };
    add(4 * gradient.length, (threads) => ({ operation: 'scaleGradient', args: { ...args, threads } }));
  },
  add({ x }, { gradient, wants, into, add }) {
    if (wants(x)) into(x, (to) => add(to.length, (threads) => copyStep(gradient, to, threads)));
  },
};

/** Adds the gradient of a step. */
export function addGradient({ operation, args }: DifferentiableStep, turn: Turn): void {
  (RULES[operation] as Rule<never>)(args as never, turn);
}

/** `to = from` */
export function copyStep(from: Floats, to: Floats, threads: number): Step {
  return { operation: 'convert', args: { from, fromDtype: 0, to, toDtype: 0, threads } };
}
