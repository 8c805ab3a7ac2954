// ONNX models made by hand: enough of protobuf for the graphs of tests. What reads them must not be what made them.

const bytes = (parts) => Buffer.concat(parts);

export function varint(value) {
  const out = [];
  for (let rest = BigInt.asUintN(64, BigInt(value)); ; rest >>= 7n) {
    if (rest < 128n) return Buffer.from([...out, Number(rest)]);
    out.push(Number(rest & 127n) | 128);
  }
}

export const number = (field, value) => bytes([varint(field << 3), varint(value)]);

export function block(field, content) {
  const data = typeof content === 'string' ? Buffer.from(content) : content;
  return bytes([varint((field << 3) | 2), varint(data.byteLength), data]);
}

const TYPES = { float32: 1, uint8: 2, int32: 6, int64: 7, float16: 10, bfloat16: 16 };

const viewOf = (data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

/** A TensorProto. `how`: its numbers `raw`, as `float_data`, or in another file (`{ location, offset, length }`). */
export function tensor(name, type, shape, data, how = 'raw') {
  const pair = (key, value) => block(13, bytes([block(1, key), block(2, String(value))]));
  const numbers =
    how === 'raw'
      ? [block(9, viewOf(data))]
      : how === 'float_data'
        ? [block(4, viewOf(data))]
        : [...Object.entries(how).map(([key, value]) => pair(key, value)), number(14, 1)];
  return bytes([...shape.map((size) => number(1, size)), number(2, TYPES[type]), block(8, name), ...numbers]);
}

const floats = (name, shape, data) => tensor(name, 'float32', shape, data);

function attribute(name, value) {
  const own = (fields, type) => block(5, bytes([block(1, name), ...fields, number(20, type)]));
  if (typeof value === 'number') return own([number(3, value)], 2);
  if (Array.isArray(value)) return own(value.map((one) => number(8, one)), 7);
  if ('float' in value) return own([bytes([varint((2 << 3) | 5), viewOf(Float32Array.of(value.float))])], 1);
  if ('tensor' in value) return own([block(5, value.tensor)], 4);
  return own([block(6, value.graph)], 5);
}

/** A NodeProto. Attributes: whole numbers, lists of them, `{ float }`, `{ tensor }`, `{ graph }`. */
export function node(op, inputs, outputs, attributes = {}, { name = '', domain = '' } = {}) {
  return bytes([
    ...inputs.map((input) => block(1, input)),
    ...outputs.map((output) => block(2, output)),
    ...(name === '' ? [] : [block(3, name)]),
    block(4, op),
    ...Object.entries(attributes).map(([key, value]) => attribute(key, value)),
    ...(domain === '' ? [] : [block(7, domain)]),
  ]);
}

/** A ValueInfoProto. Dimensions are numbers, or names. */
export function value(name, type, shape) {
  const dims = shape.map((size) => block(1, typeof size === 'string' ? block(2, size) : number(1, size)));
  return bytes([block(1, name), block(2, block(1, bytes([number(1, TYPES[type]), block(2, bytes(dims))])))]);
}

/** A GraphProto. */
export function graph({ nodes, tensors = [], inputs = [], outputs }) {
  return bytes([
    ...nodes.map((one) => block(1, one)),
    block(2, 'graph'),
    ...tensors.map((one) => block(5, one)),
    ...inputs.map((one) => block(11, one)),
    ...outputs.map((one) => block(12, one)),
  ]);
}

/** A ModelProto. `more` goes after all else: fields that nobody knows. */
export function model(content, { ir = 8, opset = 17, more = Buffer.alloc(0) } = {}) {
  const opsets = block(8, bytes([block(1, ''), number(2, opset)]));
  return bytes([number(1, ir), block(2, 'tests'), block(7, content), opsets, more]);
}

/** Numbers that look random and are always the same: normally distributed. */
export function gaussian(count, seed = 1, scale = 1) {
  let state = (seed * 2654435761) >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) + 0.5) / 2 ** 32;
  };
  const out = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const [radius, angle] = [Math.sqrt(-2 * Math.log(next())), 2 * Math.PI * next()];
    out[i] = radius * Math.cos(angle) * scale;
    if (i + 1 < count) out[i + 1] = radius * Math.sin(angle) * scale;
  }
  return out;
}

export { floats };
