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

export const floats = (name, shape, data) => tensor(name, 'float32', shape, data);

function attribute(name, value) {
  const own = (fields, type) => block(5, bytes([block(1, name), ...fields, number(20, type)]));
  if (typeof value === 'number') return own([number(3, value)], 2);
  if (Array.isArray(value))
    return own(
      value.map((one) => number(8, one)),
      7,
    );
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

/** Fields of a message: number to payloads, of which varints are BigInt. */
export function fieldsOf(message) {
  const fields = new Map();
  const spelt = (at) => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return [value, at];
    }
  };
  for (let at = 0; at < message.length; ) {
    const [tag, next] = spelt(at);
    const [field, wire] = [Number(tag >> 3n), Number(tag & 7n)];
    let payload;
    if (wire === 0) [payload, at] = spelt(next);
    else {
      const [length, begin] = wire === 2 ? spelt(next) : [wire === 1 ? 8n : 4n, next];
      at = begin + Number(length);
      payload = message.subarray(begin, at);
    }
    fields.set(field, [...(fields.get(field) ?? []), payload]);
  }
  return fields;
}

const text = (payload) => (payload === undefined ? '' : Buffer.from(payload).toString());
const signed = (payload) => Number(BigInt.asIntN(64, payload));

function readTensor(payload) {
  const fields = fieldsOf(payload);
  const external = Object.fromEntries(
    (fields.get(13) ?? []).map((pair) => [text(fieldsOf(pair).get(1)?.[0]), text(fieldsOf(pair).get(2)?.[0])]),
  );
  const shape = (fields.get(1) ?? []).map(Number);
  return { name: text(fields.get(8)?.[0]), type: Number(fields.get(2)[0]), shape, raw: fields.get(9)?.[0], external };
}

function readGraph(payload) {
  const fields = fieldsOf(payload);
  const nodes = (fields.get(1) ?? []).map((one) => {
    const own = fieldsOf(one);
    const attributes = (own.get(5) ?? []).map((given) => {
      const inner = fieldsOf(given);
      const content = inner.has(6)
        ? readGraph(inner.get(6)[0])
        : inner.has(3)
          ? signed(inner.get(3)[0])
          : inner.get(8)?.map(signed);
      return [text(inner.get(1)[0]), content];
    });
    const names = (field) => (own.get(field) ?? []).map(text);
    return {
      ...{ op: text(own.get(4)?.[0]), name: text(own.get(3)?.[0]), domain: text(own.get(7)?.[0]) },
      ...{ inputs: names(1), outputs: names(2), attributes: Object.fromEntries(attributes) },
    };
  });
  const tensors = Object.fromEntries((fields.get(5) ?? []).map(readTensor).map((one) => [one.name, one]));
  const inputs = (fields.get(11) ?? []).map((one) => text(fieldsOf(one).get(1)?.[0]));
  return { nodes, tensors, inputs };
}

/** What a model says, for tests: its graph, its operators' versions. */
export function read(file) {
  const fields = fieldsOf(file);
  const opsets = (fields.get(8) ?? []).map((one) => [text(fieldsOf(one).get(1)?.[0]), Number(fieldsOf(one).get(2)[0])]);
  return { ...readGraph(fields.get(7)[0]), opsets: Object.fromEntries(opsets) };
}
