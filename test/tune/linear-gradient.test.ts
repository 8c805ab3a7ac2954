import { describe, expect, test } from 'vitest';
import { availableBackends, openBackend } from '../../lib/backend/index.js';
import { provide } from '../../lib/backend/js/backend.js';
import { denseLinearGradient } from '../../lib/backend/js/gradients/linear.js';
import { expectSameBytes } from '../support/bytes.js';
import { gaussian, randomOf } from '../support/random.mjs';

provide({ denseLinearGradient });

const BACKENDS = availableBackends();
/** Unit of the last place of float32, relative. */
const EPSILON = 2 ** -24;
const NONE = new Float32Array(0);

interface Case {
  readonly batch: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly x: Float32Array;
  readonly weights: Float32Array;
  readonly gradient: Float32Array;
  /** What the gradient of x is added to. */
  readonly before: Float32Array;
}

function newCase(random: () => number, batch: number, inFeatures: number, outFeatures: number): Case {
  const floats = (length: number) => Float32Array.from({ length }, gaussian(random, 1));
  const [x, weights] = [floats(batch * inFeatures), floats(outFeatures * inFeatures)];
  const [gradient, before] = [floats(batch * outFeatures), floats(batch * inFeatures)];
  return { batch, inFeatures, outFeatures, x, weights, gradient, before };
}

function run(name: string, { before, ...args }: Case, wanted: 'x' | 'weights' | 'both', threads: number) {
  const xGradient = wanted === 'weights' ? NONE : before.slice();
  const weightGradient = wanted === 'x' ? NONE : new Float32Array(args.weights.length).fill(NaN);
  const [x, weights] = [wanted === 'x' ? NONE : args.x, wanted === 'weights' ? NONE : args.weights];
  openBackend(name).run('denseLinearGradient', { ...args, x, weights, xGradient, weightGradient, threads });
  return { xGradient, weightGradient };
}

/** `[rows, cols]` of sums of `terms` products in float64, and of their sizes. */
function exact(rows: number, cols: number, terms: number, term: (r: number, c: number, k: number) => number) {
  const [sums, sizes] = [new Float64Array(rows * cols), new Float64Array(rows * cols)];
  for (let at = 0; at < sums.length; at++) {
    for (let k = 0; k < terms; k++) {
      const product = term(Math.floor(at / cols), at % cols, k);
      sums[at]! += product;
      sizes[at]! += Math.abs(product);
    }
  }
  return { sums, sizes };
}

/** Chains of 256 products, one after the other: no term is rounded more often than that, and once for each chain. */
function expectNear(
  got: Float32Array,
  { sums, sizes }: ReturnType<typeof exact>,
  terms: number,
  before?: Float32Array,
) {
  const roundings = Math.min(terms, 256) + Math.ceil(terms / 256) + 1;
  const wrong = got.findIndex((value, i) => {
    const start = before?.[i] ?? 0;
    return !(Math.abs(value - start - sums[i]!) <= EPSILON * roundings * (sizes[i]! + Math.abs(start)));
  });
  if (wrong >= 0) expect.fail(`element ${wrong}: ${got[wrong]}, not ${sums[wrong]! + (before?.[wrong] ?? 0)}`);
}

describe.each(BACKENDS)('%s', (name) => {
  test.each([
    [1, 1, 1],
    [1, 17, 5],
    [3, 16, 9],
    [5, 33, 40],
    [13, 48, 31],
    [30, 100, 7],
    [101, 65, 19],
    [300, 20, 12],
    [7, 31, 290],
  ])('gradients of %i rows, %i to %i features, are those of float64, whatever the number of threads', (...shape) => {
    const random = randomOf(shape[0]);
    const given = newCase(random, ...shape);
    const { batch, inFeatures, outFeatures, x, weights, gradient } = given;
    const both = run(name, given, 'both', 1);
    const ofX = exact(batch, inFeatures, outFeatures, (b, i, o) => {
      return gradient[b * outFeatures + o]! * weights[o * inFeatures + i]!;
    });
    const ofWeights = exact(outFeatures, inFeatures, batch, (o, i, b) => {
      return gradient[b * outFeatures + o]! * x[b * inFeatures + i]!;
    });
    expectNear(both.xGradient, ofX, outFeatures, given.before);
    expectNear(both.weightGradient, ofWeights, batch);
    for (const threads of [2, 7]) {
      const again = run(name, given, 'both', threads);
      expectSameBytes(again.xGradient, both.xGradient);
      expectSameBytes(again.weightGradient, both.weightGradient);
    }
    expectSameBytes(run(name, given, 'x', 1).xGradient, both.xGradient);
    expectSameBytes(run(name, given, 'weights', 1).weightGradient, both.weightGradient);
    // A row alone.
    const row = { x: x.slice(0, inFeatures), gradient: gradient.slice(0, outFeatures) };
    const alone = run(name, { ...given, ...row, batch: 1, before: given.before.slice(0, inFeatures) }, 'x', 1);
    expectSameBytes(alone.xGradient, both.xGradient.slice(0, inFeatures));
  });

  test('they are what differences of the product say', () => {
    const random = randomOf(7);
    const given = newCase(random, 4, 6, 5);
    const { batch, inFeatures, outFeatures, x, weights, gradient } = given;
    /** The sum over all outputs, each times its gradient, in float64. */
    const loss = (ofX: Float64Array, ofWeights: Float64Array) => {
      let sum = 0;
      for (let b = 0; b < batch; b++)
        for (let o = 0; o < outFeatures; o++)
          for (let i = 0; i < inFeatures; i++)
            sum += gradient[b * outFeatures + o]! * ofX[b * inFeatures + i]! * ofWeights[o * inFeatures + i]!;
      return sum;
    };
    const { xGradient, weightGradient } = run(name, { ...given, before: new Float32Array(x.length) }, 'both', 1);
    const difference = (which: 0 | 1, at: number) => {
      const [low, high] = [-1, 1].map((sign) => {
        const pair = [Float64Array.from(x), Float64Array.from(weights)] as const;
        pair[which][at]! += sign * 1e-3;
        return loss(...pair);
      });
      return (high! - low!) / 2e-3;
    };
    xGradient.forEach((value, at) => expect(value).toBeCloseTo(difference(0, at), 4));
    weightGradient.forEach((value, at) => expect(value).toBeCloseTo(difference(1, at), 4));
  });
});
