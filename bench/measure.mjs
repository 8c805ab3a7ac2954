// How this folder measures: everything in pairs with a memcpy of the same matrix in the same run, interleaved, so that a
// machine that slows down slows both; medians, with the middle half of the ratios beside them.
import { performance } from 'node:perf_hooks';

export function median(values) {
  return quantile(values, 0.5);
}

export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}

/** Milliseconds that `work` takes. */
export function time(work) {
  const start = performance.now();
  work();
  return performance.now() - start;
}

/**
 * Times `work` against `unit` in turn, `pairs` times after one of each to warm up.
 *
 * @returns median milliseconds of both, and the quartiles of work / unit over the pairs.
 */
export function compare(work, unit, pairs = 9) {
  work();
  unit();
  const times = { work: [], unit: [], ratio: [] };
  for (let i = 0; i < pairs; i++) {
    const u = time(unit);
    const w = time(work);
    times.work.push(w);
    times.unit.push(u);
    times.ratio.push(w / u);
  }
  return {
    ms: median(times.work),
    unitMs: median(times.unit),
    ratio: median(times.ratio),
    low: quantile(times.ratio, 0.25),
    high: quantile(times.ratio, 0.75),
  };
}

/** Normal numbers from a seed: the sum of four uniform ones is near enough, and the same everywhere. */
export function gaussian(length, std, seed = 1) {
  const out = new Float32Array(length);
  let state = seed >>> 0;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  const scale = std * Math.sqrt(3);
  for (let i = 0; i < length; i++) out[i] = (uniform() + uniform() + uniform() + uniform()) * scale;
  return out;
}

/** The upper halves of floats, rounded half to even. */
export function toBfloat16(floats) {
  const bits = new Uint32Array(floats.buffer, floats.byteOffset, floats.length);
  return Uint16Array.from(bits, (u) => (u + 0x7fff + ((u >>> 16) & 1)) >>> 16);
}

export function table(rows) {
  const text = rows.map((row) => row.map(String));
  const widths = text[0].map((_, c) => Math.max(...text.map((row) => row[c].length)));
  return text
    .map((row) => row.map((cell, c) => (c === 0 ? cell.padEnd(widths[c]) : cell.padStart(widths[c]))).join('  '))
    .join('\n');
}
