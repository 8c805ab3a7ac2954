// What each solver makes of weights: relative error, bits per weight, of joint with 8-bit scales and zeros too, and weights per second, for every
// width, kind of zeros and size of groups. Prints one JSON document; HQQ_MODELS adds the real weights that are there. HQQ_SPEEDS=1: only how fast
// each solver is, at 4 bits in groups of 64.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backend, NBITS, quantizeSync, SOLVERS } from 'hqq';
import { gaussian, randomOf } from '../test/support/random.mjs';

const models = process.env.HQQ_MODELS ?? fileURLToPath(new URL('../../shared/models', import.meta.url));
const [ROWS, COLS] = [1024, 1216];
const GROUPS = [32, 64, 128];
/** Of 8-bit scales and zeros: what costs about as many bits as a type of ggml's. */
const BYTE_GROUPS = [32, 38, 64];
const ZERO_POINTS = ['float', 'integer', 'symmetric'];
/** Relative errors of ggml's own quantizer on gaussian weights and on a Llama of 2.3 million, with its bits per weight. */
const GGML = [
  { name: 'Q4_0', bitsPerWeight: 4.5, gaussian: 0.0859, llama: 0.086 },
  { name: 'Q4_K', bitsPerWeight: 4.5, gaussian: 0.0714, llama: 0.0714 },
  { name: 'Q3_K', bitsPerWeight: 3.4375, gaussian: 0.1508, llama: 0.151 },
  { name: 'Q2_K', bitsPerWeight: 2.625, gaussian: 0.2961, llama: 0.2962 },
];

const random = randomOf(1);
const normal = gaussian(random, 1);
const studentT = (freedom) =>
  normal() / Math.sqrt(Array.from({ length: freedom }, () => normal() ** 2 / freedom).reduce((a, b) => a + b));
const matrix = (draw) => ({
  data: Float32Array.from({ length: ROWS * COLS }, () => 0.02 * draw()),
  dtype: 'float32',
  shape: [ROWS, COLS],
});

/** The largest layers of a checkpoint, `count` of them. */
function layersOf(file, count) {
  const bytes = readFileSync(file);
  const header = Number(bytes.readBigUInt64LE(0));
  const names = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };
  return Object.entries(JSON.parse(bytes.toString('utf8', 8, 8 + header)))
    .filter(([name, { shape, dtype }]) => shape?.length === 2 && names[dtype] && /proj|mlp|attn/.test(name))
    .sort(([, a], [, b]) => b.shape[0] * b.shape[1] - a.shape[0] * a.shape[1])
    .slice(0, count)
    .map(
      ([
        ,
        {
          shape,
          dtype,
          data_offsets: [begin, end],
        },
      ]) => ({
        ...{ shape, dtype: names[dtype] },
        data: new Uint8Array(bytes.subarray(8 + header + begin, 8 + header + end)),
      }),
    );
}

const subjects = { gaussian: [matrix(normal)], 'student-t(5)': [matrix(() => studentT(5))] };
for (const name of ['llama-2.3m-books', 'smollm2']) {
  const file = join(models, name, 'model.safetensors');
  if (existsSync(file)) subjects[name] = layersOf(file, 8);
}

/** Of several matrices together. */
function measure(weights, config) {
  let [squares, all, count, ms] = [0, 0, 0, 0];
  for (const weight of weights) {
    const begin = process.cpuUsage(); // of this thread alone, whatever else the machine does
    const { stats } = quantizeSync(weight, config, { threads: 1 });
    const { user, system } = process.cpuUsage(begin);
    ms += (user + system) / 1e3;
    const size = weight.shape[0] * weight.shape[1];
    squares += stats.meanSquaredError * size;
    all += stats.relativeError === 0 ? 0 : (stats.meanSquaredError * size) / stats.relativeError ** 2;
    count += size;
  }
  return { relativeError: Math.sqrt(squares / all), weightsPerSecond: (count / ms) * 1e3 };
}

const onlySpeeds = process.env.HQQ_SPEEDS === '1';
const rows = [];
/** Of a few: what else the machine does makes a run slower, and none faster. */
const RUNS = 5;

for (const [subject, weights] of Object.entries(subjects)) {
  for (const solver of SOLVERS) {
    for (const zeroPoint of ZERO_POINTS) {
      for (const nbits of onlySpeeds ? [4] : NBITS) {
        for (const groupSize of onlySpeeds ? [64] : GROUPS) {
          const config = { solver, zeroPoint, nbits, groupSize };
          try {
            measure(weights.slice(0, 1), config); // warms up
          } catch (error) {
            if (error.code === 'ERR_INVALID_OPTION') continue; // zeros that the solver does not find
            throw error;
          }
          const zeroBits = { float: 16, integer: nbits, symmetric: 0 }[zeroPoint];
          const bitsPerWeight = nbits + (16 + zeroBits) / groupSize;
          const runs = Array.from({ length: nbits === 4 && groupSize === 64 ? RUNS : 1 }, () =>
            measure(weights, config),
          );
          const fastest = runs.reduce((a, b) => (b.weightsPerSecond > a.weightsPerSecond ? b : a));
          rows.push({ subject, ...config, metaBits: 16, bitsPerWeight, ...fastest });
        }
      }
    }
  }
}
for (const [subject, weights] of onlySpeeds ? [] : Object.entries(subjects)) {
  for (const nbits of NBITS) {
    for (const groupSize of BYTE_GROUPS) {
      if (weights.some(({ shape }) => shape[1] % groupSize !== 0)) continue;
      const config = { solver: 'joint', zeroPoint: 'float', nbits, groupSize, metaBits: 8 };
      measure(weights.slice(0, 1), config); // warms up
      // scales in sets of 128, with two numbers of 32 bits for each
      const bitsPerWeight = nbits + (16 + 64 / 128) / groupSize;
      rows.push({ subject, ...config, bitsPerWeight, ...measure(weights, config) });
    }
  }
}
console.log(JSON.stringify({ isa: backend().isa, ggml: GGML, rows }));
