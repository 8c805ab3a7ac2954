// Onnx models of one node, encoded by hand: enough of protobuf for MatMul and MatMulNBits.

const bytes = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));

function varint(value) {
  const out = [];
  for (let v = BigInt.asUintN(64, BigInt(value)); ; v >>= 7n) {
    if (v < 128n) return Buffer.from([...out, Number(v)]);
    out.push(Number(v & 127n) | 128);
  }
}
const number = (field, value) => bytes(varint(field << 3), varint(value));
function block(field, content) {
  const data = typeof content === 'string' ? Buffer.from(content) : content;
  return bytes(varint((field << 3) | 2), varint(data.byteLength), data);
}

const FLOAT = 1;
const UINT8 = 2;

function tensor(name, type, shape, data) {
  const raw = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return bytes(...shape.map((size) => number(1, size)), number(2, type), block(8, name), block(9, raw));
}

function value(name, shape) {
  const dims = shape.map((size) => block(1, typeof size === 'string' ? block(2, size) : number(1, size)));
  return bytes(block(1, name), block(2, block(1, bytes(number(1, FLOAT), block(2, bytes(...dims))))));
}

function model(node, initializers, inFeatures, outFeatures) {
  const graph = bytes(
    ...[block(1, node), block(2, 'linear'), ...initializers.map((tensorBytes) => block(5, tensorBytes))],
    ...[block(11, value('x', ['batch', inFeatures])), block(12, value('y', ['batch', outFeatures]))],
  );
  const opset = (domain, version) => block(8, bytes(block(1, domain), number(2, version)));
  return bytes(number(1, 8), block(7, graph), opset('', 17), opset('com.microsoft', 1));
}

const int = (name, n) => block(5, bytes(block(1, name), number(3, n), number(20, 2)));
const node = (type, domain, inputs, attributes) =>
  bytes(...inputs.map((name) => block(1, name)), block(2, 'y'), block(4, type), ...attributes, block(7, domain));

/** y = x . W, W `[inFeatures, outFeatures]` in float32. */
export function matMul(outFeatures, inFeatures, weights) {
  const w = tensor('w', FLOAT, [inFeatures, outFeatures], weights);
  return model(node('MatMul', '', ['x', 'w'], []), [w], inFeatures, outFeatures);
}

/** 4 bits, uint8 zero points; level 4 rounds x to int8, 0 does not. */
export function matMulNBits(outFeatures, inFeatures, group, level, codes, scales, zeros) {
  const groups = inFeatures / group;
  const attributes = Object.entries({
    K: inFeatures,
    N: outFeatures,
    bits: 4,
    block_size: group,
    accuracy_level: level,
  });
  return model(
    node(
      'MatMulNBits',
      'com.microsoft',
      ['x', 'w', 's', 'z'],
      attributes.map(([name, n]) => int(name, n)),
    ),
    [
      tensor('w', UINT8, [outFeatures, groups, group / 2], codes),
      tensor('s', FLOAT, [outFeatures * groups], scales),
      tensor('z', UINT8, [outFeatures * Math.ceil(groups / 2)], zeros),
    ],
    ...[inFeatures, outFeatures],
  );
}
