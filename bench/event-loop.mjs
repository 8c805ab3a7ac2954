// How long the event loop waits while matrices are quantized, and while batches are multiplied, on all threads: prints one JSON
// document.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { backend, QuantizedLinear, quantize } from 'hqq';
import { gaussian } from './measure.mjs';

const size = 4096;
const batch = 512;
const weight = { data: gaussian(size * size, 0.02), dtype: 'float32', shape: [size, size] };

/** Runs `count` calls of `work` at once, after one to warm up. */
async function watch(count, work) {
  await work();
  const resolution = 1;
  const delay = monitorEventLoopDelay({ resolution });
  delay.enable();
  const start = performance.now();
  await Promise.all(Array.from({ length: count }, work));
  const ms = performance.now() - start;
  delay.disable();
  // The histogram counts the timer's own interval: what lies beyond it is delay.
  const at = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - resolution);
  return { count, ms, p50: at(delay.percentile(50)), p99: at(delay.percentile(99)), max: at(delay.max) };
}

const rows = [{ name: `${size} x ${size} weights quantized`, ...(await watch(40, () => quantize(weight))) }];
const q = await quantize(weight);
const x = gaussian(batch * size, 1, 7);
for (const activations of ['float32', 'int8']) {
  const layer = new QuantizedLinear(q, { activations });
  rows.push({
    name: `batches of ${batch} through forward, ${activations}`,
    ...(await watch(20, () => layer.forward(x))),
  });
}
console.log(JSON.stringify({ ...backend(), rows }));
