// What bench/linear.mjs measures side by side: each rival is `call(copy)`, one product with that copy of its weights.
import { dequantizeSync, QuantizedLinear, quantizeSync } from 'hqq';
import * as js from 'hqq/js';
import { matMul, matMulNBits } from './onnx.mjs';

export const GROUP = 64;

/** onnxruntime-node, if it is there: npm install --no-save --ignore-scripts onnxruntime-node */
export const ort = await import('onnxruntime-node').then(
  (module) => module.default,
  () => undefined,
);

/** Numbers that the rivals computed, so that no work can be left out. */
export const results = { read: 0 };

/** `hqq`, or its JavaScript twin in the same process. `beside` names the rival that it is held against. */
export function layer(
  q,
  { activations, name = `hqq ${q.nbits}-bit ${activations}`, beside, twin = false },
  { x, batch, threads },
  copies,
) {
  const Layer = twin ? js.QuantizedLinear : QuantizedLinear;
  const layers = Array.from({ length: copies }, () => new Layer(q, { activations }));
  const y = new Float32Array(batch * q.shape[0]);
  const run = twin ? { out: y } : { out: y, threads };
  const call = (copy) => void (layers[copy % copies].forwardSync(x, run), (results.read += y[0]));
  return { name, beside, weightBytes: layers[0].memoryUsage, kernel: layers[0].kernel, call };
}

async function session(name, beside, model, weightBytes, [out, inFeatures], { x, batch, threads }, copies) {
  const options = {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all',
  };
  const sessions = [];
  for (let i = 0; i < copies; i++) sessions.push(await ort.InferenceSession.create(model, options));
  const feeds = { x: new ort.Tensor('float32', x, [batch, inFeatures]) };
  const y = new Float32Array(batch * out);
  const fetches = { y: new ort.Tensor('float32', y, [batch, out]) };
  const call = async (copy) => void (await sessions[copy % copies].run(feeds, fetches), (results.read += y[0]));
  return { name, beside, weightBytes, call, done: () => Promise.all(sessions.map((one) => one.release())) };
}

/** MatMulNBits of 4 bits with uint8 zeros; level 4 rounds x to int8, level 0 does not. */
export function onnxNBits(level, beside, shape, input, copiesOf) {
  const [out, inFeatures] = shape;
  const codes = new Uint8Array((out * inFeatures) / 2);
  for (let i = 0; i < codes.length; i++) codes[i] = (Math.imul(i, 2654435761) >>> 13) & 255;
  const groups = inFeatures / GROUP;
  const scales = new Float32Array(out * groups).fill(0.01);
  const zeros = new Uint8Array(out * Math.ceil(groups / 2)).fill(0x88);
  const bytes = codes.length + scales.byteLength + zeros.length;
  const model = matMulNBits(out, inFeatures, GROUP, level, codes, scales, zeros);
  return session(`onnxruntime level ${level}`, beside, model, bytes, shape, input, copiesOf(bytes));
}

/** Float32 weights. */
export function onnxFloat(beside, weight, input) {
  const [out, inFeatures] = weight.shape;
  const model = matMul(out, inFeatures, weight.data);
  return session('onnxruntime float32', beside, model, 4 * out * inFeatures, weight.shape, input, 1);
}

/**
 * Reads as many bytes as a layer has, and does nothing else with them: a search for a byte that is not there. What was
 * dequantized into lies in large pages where the system has them, as layers do.
 */
export function reader(bytes, beside, copies) {
  const rows = Math.ceil(bytes / 4 / 4096);
  const q = quantizeSync(
    { data: new Float32Array(rows * 4096), dtype: 'float32', shape: [rows, 4096] },
    { nbits: 8, solver: 'minmax' },
  );
  const arrays = Array.from({ length: copies }, () => Buffer.from(dequantizeSync(q).buffer, 0, bytes).fill(1));
  return {
    name: 'reading its bytes',
    beside,
    weightBytes: bytes,
    call: (copy) => void (results.read += arrays[copy % copies].indexOf(0)),
  };
}
