'use strict';
// What a program of a user does, on an installed package: quantizes a matrix, multiplies, and says what it saw.

/** Bytes as a short text: equal texts mean equal bytes. */
function digest({ buffer, byteOffset, byteLength }) {
  let sum = 0x811c9dc5;
  for (const byte of new Uint8Array(buffer, byteOffset, byteLength)) sum = Math.imul(sum ^ byte, 0x01000193);
  return (sum >>> 0).toString(16);
}

async function compute({ quantize, QuantizedLinear }) {
  const data = Float32Array.from({ length: 16 * 256 }, (_, i) => ((i * 7919) % 1009) / 1009 - 0.5);
  const q = await quantize({ data, dtype: 'float32', shape: [16, 256] }, { nbits: 4, groupSize: 64 });
  const layer = new QuantizedLinear(q, { activations: 'int8' });
  const y = await layer.forward(data.subarray(0, 512));
  return [q.packed, q.scale, q.zero, y].map(digest).join(' ');
}

/** @param {{ hqq: object, js: object, runtime: object }} modules */
module.exports = async function use({ hqq, js, runtime }) {
  const warnings = [];
  process.on('warning', ({ code, message, detail }) => warnings.push({ code, message, detail }));
  const seen = { format: typeof hqq.quantizeModel, runtime: typeof runtime.loadLanguageModel };
  try {
    seen.bytes = await compute(hqq);
    seen.same = seen.bytes === (await compute(js));
    seen.backend = hqq.backend();
  } catch ({ name, code, message }) {
    seen.error = { name, code, message };
  }
  await new Promise((resolve) => setImmediate(resolve)); // warnings come after what caused them
  console.log(JSON.stringify({ ...seen, warnings }));
};
