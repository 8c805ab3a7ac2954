// How long the event loop waits while matrices are quantized on all threads: prints one JSON document.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { backend, quantize } from 'hqq';
import { gaussian } from './measure.mjs';

const size = 4096;
const weight = { data: gaussian(size * size, 0.02), dtype: 'float32', shape: [size, size] };
await quantize(weight);
const resolution = 1;
const delay = monitorEventLoopDelay({ resolution });
delay.enable();
const matrices = 40;
const start = performance.now();
await Promise.all(Array.from({ length: matrices }, () => quantize(weight)));
const ms = performance.now() - start;
delay.disable();
// The histogram counts the timer's own interval: what lies beyond it is delay.
const at = (percentile) => Math.max(0, delay.percentile(percentile) / 1e6 - resolution);
console.log(JSON.stringify({ ...backend(), matrices, ms, p50: at(50), p99: at(99), max: Math.max(0, delay.max / 1e6 - resolution) }));
