// QuantizedLinear beside onnxruntime-node (MatMulNBits of 4 bits with uint8 zeros, float32 MatMul), the JavaScript twin, and
// the plain reading of as many bytes, in one process on as many threads (LINEAR_THREADS, default 1): prints one JSON document.
//
// hot: one layer, again and again. cold: as many copies in turn as hold 160 MiB, so that each comes from memory.
// In every round all rivals take their turn once. A figure is the median of the rounds, its spread that of the middle half;
// a ratio is that of the two times of one round.
import { backend, quantizeSync } from 'hqq';
import { gaussian, median, quantile } from './measure.mjs';
import { results as computed, GROUP, layer, onnxFloat, onnxNBits, ort, reader } from './rivals.mjs';

const threads = Number(process.env.LINEAR_THREADS ?? 1);
const quick = process.env.LINEAR_QUICK === '1';
// A piece of it, on a machine that is quiet for a minute only: LINEAR_SHAPES=4096x4096,384x384 LINEAR_BATCHES=1,8
const listed = (name, otherwise) => (process.env[name] ?? otherwise).split(',');
const SHAPES = listed('LINEAR_SHAPES', quick ? '4096x4096,384x384' : '4096x4096,11008x4096,384x384,1536x384').map(
  (shape) => shape.split('x').map(Number),
);
const BATCHES = listed('LINEAR_BATCHES', quick ? '1,8,64' : '1,8,64,512').map(Number);
const COLD_BYTES = 160 * 2 ** 20;
const MIN_MS = 4; // of a figure, so that the clock does not matter
// LINEAR_CLOCK=cpu counts the time that the process computes, on a machine that has other work too (one thread only).
const useCpu = process.env.LINEAR_CLOCK === 'cpu';
function clock() {
  if (!useCpu) return performance.now();
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

/** Every rival's microseconds a call, and its ratio to the one that it stands beside. */
async function measure(rivals, rounds) {
  const times = new Map(rivals.map(({ name }) => [name, []]));
  const counts = new Map();
  let turn = 0;
  for (const rival of rivals) {
    await rival.call(turn++);
    const start = clock();
    await rival.call(turn++);
    counts.set(rival.name, Math.max(1, Math.ceil(MIN_MS / Math.max(0.001, clock() - start))));
  }
  for (let round = 0; round < rounds; round++) {
    for (const rival of rivals) {
      const count = counts.get(rival.name);
      const start = clock();
      for (let i = 0; i < count; i++) {
        const pending = rival.call(turn++);
        if (pending) await pending;
      }
      times.get(rival.name).push(((clock() - start) * 1e3) / count);
    }
  }
  const spread = (values) => ({ median: median(values), low: quantile(values, 0.25), high: quantile(values, 0.75) });
  return rivals.map(({ name, weightBytes, kernel, beside }) => {
    const us = times.get(name);
    const ratio = beside && spread(us.map((value, round) => value / times.get(beside)[round]));
    return { name, kernel, us: spread(us), beside, ratio, weightBytes };
  });
}

const results = [];
for (const shape of SHAPES) {
  const [out, inFeatures] = shape;
  const weight = { data: gaussian(out * inFeatures, 0.02), dtype: 'float32', shape };
  const [q4, q3, q2] = [4, 3, 2].map((nbits) => quantizeSync(weight, { nbits, groupSize: GROUP, solver: 'minmax' }));
  for (const batch of BATCHES) {
    for (const cold of batch === 1 && out * inFeatures > 1e7 ? [false, true] : [false]) {
      const input = { x: gaussian(batch * inFeatures, 1, 7), batch, threads };
      const copiesOf = (bytes) => (cold ? Math.ceil(COLD_BYTES / bytes) : 1);
      const ours = (q, options) => layer(q, options, input, copiesOf((out * inFeatures * (q.nbits + 1)) / 8));
      const int8 = ours(q4, { activations: 'int8' });
      const float32 = ours(q4, { activations: 'float32' });
      const rivals = [int8, float32];
      if (batch === 1) rivals.push(...[q3, q2].map((q) => ours(q, { activations: 'int8', beside: int8.name })));
      if (ort) {
        rivals.push(await onnxNBits(4, int8.name, shape, input, copiesOf));
        rivals.push(await onnxNBits(0, float32.name, shape, input, copiesOf));
        if (!cold) rivals.push(await onnxFloat(float32.name, weight, input));
      }
      if (batch <= 8 && !cold && backend().name === 'native') {
        rivals.push(ours(q4, { activations: 'int8', name: 'JavaScript int8', beside: int8.name, twin: true }));
        rivals.push(ours(q4, { activations: 'float32', name: 'JavaScript float32', beside: float32.name, twin: true }));
      }
      if (batch === 1) rivals.push(reader(int8.weightBytes, int8.name, copiesOf(int8.weightBytes)));
      const rounds = batch >= 512 ? 5 : batch >= 64 ? 7 : 31;
      results.push({ out, inFeatures, batch, cold, rows: await measure(rivals, rounds) });
      for (const rival of rivals) await rival.done?.();
    }
  }
}

const onnxruntime = ort ? (ort.env.versions?.common ?? true) : null;
console.log(
  JSON.stringify({
    ...backend(),
    threads,
    clock: useCpu ? 'cpu' : 'wall',
    group: GROUP,
    onnxruntime,
    results,
    ...computed,
  }),
);
