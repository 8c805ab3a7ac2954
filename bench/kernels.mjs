// One backend on one instruction set, through the public API: prints one JSON document. main.mjs runs it once for each.
import { backend, dequantizeSync, NBITS, pack, quantizeSync, unpack } from 'hqq';
import { compare, gaussian, median, time, toBfloat16 } from './measure.mjs';

const native = backend().name === 'native';
const size = native ? 4096 : 1024;
const data = gaussian(size * size, 0.02);
const copy = new Float32Array(data.length);
const memcpy = () => copy.set(data);
const float = { data, dtype: 'float32', shape: [size, size] };
const brain = { data: toBfloat16(data), dtype: 'bfloat16', shape: [size, size] };

const rows = [];
let read = 0; // every output is looked at, so that no work can be left out
function measure(name, work, weights = size * size) {
  const result = compare(() => (read += work()), memcpy, native ? 9 : 3);
  rows.push({ name, ...result, weightsPerSecond: (weights / result.ms) * 1e3 });
}
const quantized = (weight, config, threads) => () => {
  const q = quantizeSync(weight, config, { threads });
  return q.packed[q.packed.length >> 1] + q.scale[0];
};

for (const solver of ['joint', 'hqq']) {
  for (const nbits of NBITS) measure(`quantize ${nbits} bit, ${solver}`, quantized(float, { nbits, solver }, 1));
  measure(`quantize 4 bit, ${solver}, bfloat16 input`, quantized(brain, { solver }, 1));
  measure(`quantize 4 bit, ${solver}, axis 0`, quantized(float, { solver, axis: 0 }, 1));
  if (native) measure(`quantize 4 bit, ${solver}, 2 threads`, quantized(float, { solver }, 2));
}
measure('quantize 4 bit, minmax', quantized(float, { solver: 'minmax' }, 1));
const out = new Float32Array(data.length);
const packings = new Set();
for (const nbits of NBITS) {
  const q = quantizeSync(float, { nbits }, { threads: 1 });
  if (packings.has(q.packing)) continue; // some widths are stored alike
  packings.add(q.packing);
  const codes = unpack(q);
  const grouped = [codes.length / 64, 64];
  measure(`dequantize ${nbits} bit`, () => dequantizeSync(q, { threads: 1 })[7]);
  measure(`dequantize ${nbits} bit into an array`, () => dequantizeSync(q, { threads: 1, out })[7]);
  measure(`unpack ${nbits} bit`, () => unpack(q)[7]);
  measure(`pack ${nbits} bit`, () => pack(codes, grouped, q.packing)[7]);
}
console.log(
  JSON.stringify({ ...backend(), size, memcpyMs: median(Array.from({ length: 9 }, () => time(memcpy))), rows, read }),
);
