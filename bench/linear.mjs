// QuantizedLinear beside onnxruntime-node (MatMulNBits of 4 bits with uint8 zeros, float32 MatMul), the JavaScript twin, and
// the plain reading of as many bytes, in one process on as many threads (LINEAR_THREADS, default 1): prints one JSON document.
//
// hot: one layer, again and again. cold: as many copies in turn as hold 160 MiB, so that each comes from memory.
// Every figure is the median of rounds in which all rivals take their turn once; its spread is that of the middle half.
import { backend, QuantizedLinear, quantizeSync } from 'hqq';
import { matMul, matMulNBits } from './onnx.mjs';
import { gaussian, median, quantile } from './measure.mjs';

const threads = Number(process.env.LINEAR_THREADS ?? 1);
const quick = process.env.LINEAR_QUICK === '1';
const SHAPES = quick ? [[4096, 4096], [384, 384]] : [[4096, 4096], [11008, 4096], [384, 384], [1536, 384]];
const BATCHES = quick ? [1, 8, 64] : [1, 8, 64, 512];
const GROUP = 64;
const COLD_BYTES = 160 * 2 ** 20;
const MIN_MS = 4; // of a figure, so that the clock does not matter
// LINEAR_CLOCK=cpu counts the time that the process computes, on a machine that has other work too (one thread only).
const useCpu = process.env.LINEAR_CLOCK === 'cpu';
function clock() {
  if (!useCpu) return performance.now();
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

let ort;
try {
  ort = (await import('onnxruntime-node')).default;
} catch {
  ort = undefined; // npm install --no-save --ignore-scripts onnxruntime-node
}

const sessionOptions = { intraOpNumThreads: threads, interOpNumThreads: 1, executionMode: 'sequential', graphOptimizationLevel: 'all' };
let read = 0;

/** A rival: `call(copy)` computes once on that copy of its weights. */
async function onnx(name, bytes, weightBytes, copies, out, inFeatures, batch, x) {
  const sessions = [];
  for (let i = 0; i < copies; i++) sessions.push(await ort.InferenceSession.create(bytes, sessionOptions));
  const feeds = { x: new ort.Tensor('float32', x, [batch, inFeatures]) };
  const y = new Float32Array(batch * out);
  const fetches = { y: new ort.Tensor('float32', y, [batch, out]) };
  return { name, weightBytes, call: async (copy) => void (await sessions[copy % copies].run(feeds, fetches), (read += y[0])), done: () => Promise.all(sessions.map((s) => s.release())) };
}

function ours(name, make, copies, batch, out, x) {
  const layers = Array.from({ length: copies }, make);
  const y = new Float32Array(batch * out);
  const call = (copy) => void (layers[copy % copies].forwardSync(x, { out: y, threads }), (read += y[0]));
  return { name, weightBytes: layers[0].memoryUsage, kernel: layers[0].kernel, call };
}

/** Sums of all rounds, in microseconds a call. */
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
  return rivals.map(({ name, weightBytes, kernel }) => {
    const all = times.get(name);
    return { name, kernel, us: median(all), low: quantile(all, 0.25), high: quantile(all, 0.75), weightBytes };
  });
}

/** 4-bit codes of a layer as MatMulNBits has them: along a row, the lower half of a byte first. Zeros are rounded. */
function packOnnx(out, inFeatures) {
  const codes = new Uint8Array((out * inFeatures) / 2);
  for (let i = 0; i < codes.length; i++) codes[i] = (Math.imul(i, 2654435761) >>> 13) & 255;
  const groups = inFeatures / GROUP;
  return { codes, scales: new Float32Array(out * groups).fill(0.01), zeros: new Uint8Array(out * Math.ceil(groups / 2)).fill(0x88) };
}

const results = [];
for (const [out, inFeatures] of SHAPES) {
  const weight = { data: gaussian(out * inFeatures, 0.02), dtype: 'float32', shape: [out, inFeatures] };
  const quantized = Object.fromEntries([4, 3, 2].map((nbits) => [nbits, quantizeSync(weight, { nbits, groupSize: GROUP, solver: 'minmax' })]));
  const packed = packOnnx(out, inFeatures);
  const onnxBytes = packed.codes.length + packed.scales.byteLength + packed.zeros.length;
  for (const batch of BATCHES) {
    for (const cold of batch === 1 && out * inFeatures > 1e7 ? [false, true] : [false]) {
      const x = gaussian(batch * inFeatures, 1, 7);
      const copiesOf = (bytes) => (cold ? Math.ceil(COLD_BYTES / bytes) : 1);
      const layer = (nbits, activations) => {
        const make = () => new QuantizedLinear(quantized[nbits], { activations });
        return ours(`hqq ${nbits}-bit ${activations}`, make, copiesOf((out * inFeatures * (nbits + 1)) / 8), batch, out, x);
      };
      const rivals = [layer(4, 'int8'), layer(4, 'float32')];
      if (batch === 1) rivals.push(layer(3, 'int8'), layer(2, 'int8'));
      if (ort) {
        const { codes, scales, zeros } = packed;
        for (const level of [4, 0]) {
          const bytes = matMulNBits(out, inFeatures, GROUP, level, codes, scales, zeros);
          rivals.push(await onnx(`onnxruntime level ${level}`, bytes, onnxBytes, copiesOf(onnxBytes), out, inFeatures, batch, x));
        }
        if (!cold) {
          const bytes = matMul(out, inFeatures, weight.data);
          rivals.push(await onnx('onnxruntime float32', bytes, 4 * out * inFeatures, 1, out, inFeatures, batch, x));
        }
      }
      if (batch === 1 && backend().name === 'native') rivals.push(reader(rivals[0].weightBytes, copiesOf(rivals[0].weightBytes)));
      const rounds = batch >= 512 ? 5 : batch >= 64 ? 7 : 31;
      results.push({ out, inFeatures, batch, cold, rows: await measure(rivals, rounds) });
      for (const rival of rivals) await rival.done?.();
    }
  }
}

/** Reads as many bytes as the 4-bit layer has, and does nothing else with them: a search for a byte that is not there. */
function reader(bytes, copies) {
  const arrays = Array.from({ length: copies }, () => Buffer.alloc(bytes, 1));
  return { name: 'reading its bytes', weightBytes: bytes, call: (copy) => void (read += arrays[copy % copies].indexOf(0)) };
}
console.log(JSON.stringify({ ...backend(), threads, clock: useCpu ? 'cpu' : 'wall', group: GROUP, onnxruntime: ort ? ort.env.versions?.common ?? true : null, results, read }));
