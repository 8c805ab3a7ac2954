// One list of cases for every place where the package runs: Node, a browser, Deno, Bun. Uses nothing but the language.

/** Bytes as a short text (FNV-1a, 64 bits in two halves): equal texts mean equal bytes. */
function digest(array) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let low = 0x811c9dc5;
  let high = 0xcbf29ce4;
  for (const byte of bytes) {
    low = Math.imul(low ^ byte, 0x01000193);
    high = Math.imul(high ^ byte ^ (low >>> 24), 0x01000193);
  }
  return `${bytes.length}:${(high >>> 0).toString(16)}${(low >>> 0).toString(16)}`;
}

/** Numbers around 0 that are the same everywhere: integer arithmetic only (xorshift), then one exact division. */
function noise(length, seed = 1) {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state | 0) / 2 ** 34;
  });
}

/** A weight of float16 bits: as numbers that say themselves what they are, where the engine has them, and as bytes. */
const halfWeights = (bits, shape) => [
  typeof Float16Array === 'function'
    ? { data: new Float16Array(bits.buffer), shape }
    : { data: bits, dtype: 'float16', shape },
  { data: new Uint8Array([0, ...new Uint8Array(bits.buffer)]).subarray(1), dtype: 'float16', shape },
];

const SHAPE = [48, 320];
const CASES = [
  ...[8, 6, 5, 4, 3, 2, 1.58, 1].map((nbits) => ({ nbits })),
  ...[8, 4, 2].map((nbits) => ({ nbits, axis: 0, groupSize: 32 })),
  ...[8, 6, 5, 4, 3, 2, 1.58, 1].map((nbits) => ({ nbits, solver: 'hqq' })),
  ...[8, 4, 2].map((nbits) => ({ nbits, axis: 0, groupSize: 32, solver: 'hqq' })),
  { nbits: 4, groupSize: null, solver: 'hqq', roundZero: true },
  { nbits: 4, solver: 'minmax' },
  { nbits: 2, groupSize: 16, solver: 'hqq', referenceGuards: true, kappa: 1.01 },
];

/**
 * A digest of every result that has one value everywhere: codes, scales, zeros, weights, and products with int8
 * activations. Products of floats agree to rounding only: `floats` gives those.
 */
export async function digests({ dequantize, dequantizeSync, pack, QuantizedLinear, quantize, quantizeSync, unpack }) {
  const found = {};
  const data = noise(SHAPE[0] * SHAPE[1]);
  const x = noise(3 * SHAPE[1], 7);
  for (const config of CASES) {
    const name = JSON.stringify(config);
    const q = await quantize({ data, dtype: 'float32', shape: SHAPE }, config);
    const blocking = quantizeSync({ data, dtype: 'float32', shape: SHAPE }, config);
    for (const part of ['packed', 'scale', 'zero']) {
      found[`${part} ${name}`] = digest(q[part]);
      if (digest(blocking[part]) !== found[`${part} ${name}`])
        throw new Error(`${part} of quantizeSync differ: ${name}`);
    }
    found[`weights ${name}`] = digest(await dequantize(q));
    const half = dequantizeSync(q, { dtype: 'float16' });
    found[`half ${name}`] = digest(half);
    const [again, bytes] = halfWeights(half, SHAPE).map((weight) => digest(quantizeSync(weight, config).packed));
    Object.assign(found, { [`again ${name}`]: again, [`bytes ${name}`]: bytes });
    const codes = unpack(q);
    found[`codes ${name}`] = digest(codes);
    const rows = q.axis === 1 ? codes.length / q.groupSize : q.groupSize;
    found[`pack ${name}`] = digest(pack(codes, [rows, codes.length / rows], q.packing));
    const layer = new QuantizedLinear(q, { activations: 'int8' });
    if (layer.path === 'fused') found[`int8 ${name}`] = digest(await layer.forward(x));
  }
  return found;
}

/** Products of floats: a layer of 4 bits, `[3, 48]`. */
export async function floats({ QuantizedLinear }) {
  const data = noise(SHAPE[0] * SHAPE[1]);
  const layer = await QuantizedLinear.fromWeight({ data, dtype: 'float32', shape: SHAPE }, { nbits: 4 });
  return layer.forward(noise(3 * SHAPE[1], 7));
}
