// What a step of tuning computes, on the shapes of a block of SmolLM2-135M: 2,048 rows (4 texts of 512) through seven linear layers, forward and
// backward, and a step of fake quantization for each of their weights. Rates of arithmetic stand beside that of the forward product alone. Best of
// some runs in turn. Prints one JSON document. HQQ_ISA: an instruction set; TUNE_THREADS: default all cores.
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { gaussian, time } from './measure.mjs';

const ROWS = 2048;
const HIDDEN = 576;
/** [inFeatures, outFeatures] */
const LAYERS = { q: [HIDDEN, 576], k: [HIDDEN, 192], v: [HIDDEN, 192], o: [576, HIDDEN] };
Object.assign(LAYERS, { gate: [HIDDEN, 1536], up: [HIDDEN, 1536], down: [1536, HIDDEN] });
const GROUP = 64;
const RUNS = 7;

const require = createRequire(import.meta.url);
const addon = require(require('node-gyp-build').path(fileURLToPath(new URL('..', import.meta.url))));
const backend = addon.open(process.env.HQQ_ISA || addon.isas[0]);
const threads = Number(process.env.TUNE_THREADS ?? cpus().length);
const none = new Float32Array(0);

const layers = Object.entries(LAYERS).map(([name, [inFeatures, outFeatures]], index) => {
  const count = inFeatures * outFeatures;
  const groups = count / GROUP;
  const x = gaussian(ROWS * inFeatures, 1, 3 * index + 1);
  const weights = gaussian(count, 0.05, 3 * index + 2);
  const gradient = gaussian(ROWS * outFeatures, 1, 3 * index + 3);
  const shape = { batch: ROWS, inFeatures, outFeatures, threads };
  const weightGradient = new Float32Array(count);
  const scale = new Float32Array(groups).fill(0.06);
  const zero = new Float32Array(groups).fill(1.5);
  return {
    name,
    flop: 2 * ROWS * count,
    weights: count,
    forward: { ...shape, x, weights, bias: none, out: new Float32Array(ROWS * outFeatures) },
    backward: { ...shape, x, weights, gradient, xGradient: new Float32Array(ROWS * inFeatures), weightGradient },
    step: {
      ...{ rows: groups, cols: GROUP, axis: 1, maxCode: 3, zeroKind: 0, weights, threads, gradient: weightGradient },
      ...{ offsets: new Float32Array(count), out: new Float32Array(count), scale, zero },
      ...{ startScale: scale.slice(), startZero: zero.slice() },
      ...{ factor: new Float32Array(groups).fill(1), shift: new Float32Array(groups) },
      ...{ offsetStep: 0.005, factorStep: 0.005, shiftStep: 0.005, factorRange: 0.5, shiftRange: 1 },
    },
  };
});

const WORK = { forward: 'denseLinear', backward: 'denseLinearGradient', step: 'fakeQuantizeStep' };
const best = Object.fromEntries(Object.keys(WORK).map((part) => [part, layers.map(() => Infinity)]));
for (let run = 0; run <= RUNS; run++) {
  for (const [i, layer] of layers.entries()) {
    for (const [part, operation] of Object.entries(WORK)) {
      const ms = time(() => backend.run(operation, layer[part]));
      if (run > 0) best[part][i] = Math.min(best[part][i], ms);
    }
  }
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const [flop, weights] = [sum(layers.map((layer) => layer.flop)), sum(layers.map((layer) => layer.weights))];
const [forward, backward, step] = Object.keys(WORK).map((part) => sum(best[part]));
console.log(
  JSON.stringify({
    ...{ isa: backend.isa, threads, rows: ROWS, weights },
    layers: layers.map(({ name, flop: own }, i) => ({
      ...{ name, forward: own / best.forward[i] / 1e6, backward: (2 * own) / best.backward[i] / 1e6 },
    })),
    gflops: { forward: flop / forward / 1e6, backward: (2 * flop) / backward / 1e6 },
    // All that a step does, against what it would take at the rate of the forward product.
    whole: { ms: forward + backward + step, gflops: (3 * flop) / (forward + backward + step) / 1e6 },
    step: { ms: step, megaweights: weights / step / 1e3 },
  }),
);
