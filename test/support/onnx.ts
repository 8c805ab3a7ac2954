import type { ReadGraph, ReadNode } from '../../interop/onnxruntime/graph.mjs';

// Computes what a graph gives, from the words of onnxruntime's documentation of its operators: for tests, in plain loops.

interface Value {
  readonly shape: readonly number[];
  readonly data: Float64Array | readonly number[];
}

const half = (bits: number): number => {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
};

function numbersOf(type: number, raw: Uint8Array): number[] {
  const bytes = Uint8Array.from(raw).buffer;
  if (type === 1) return [...new Float32Array(bytes)];
  if (type === 2) return [...new Uint8Array(bytes)];
  if (type === 7) return [...new BigInt64Array(bytes)].map(Number);
  if (type === 10) return [...new Uint16Array(bytes)].map(half);
  return [...new Uint16Array(bytes)].map((bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0]!);
}

const product = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** Code `i` of row `row`, of rows of whole bytes. */
function codeAt({ shape, data }: Value, row: number, i: number, bits: number): number {
  const width = data.length / shape[0]!;
  const each = 8 / bits;
  return (data[row * width + Math.floor(i / each)]! >> ((i % each) * bits)) & (2 ** bits - 1);
}

/** The matrix `[rows, cols]` of codes, scales and zero points. */
function decode(node: ReadNode, codes: Value, scales: Value, zeros: Value | undefined, cols: number): Value {
  const { bits, block_size: block } = node.attributes as { bits: number; block_size: number };
  const rows = codes.shape[0]!;
  const blocks = Math.ceil(cols / block);
  const data = new Float64Array(rows * cols);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < cols; i++) {
      const at = Math.floor(i / block);
      const zero = zeros ? codeAt(zeros, row, at, bits) : 2 ** (bits - 1);
      data[row * cols + i] = (codeAt(codes, row, i, bits) - zero) * scales.data[row * blocks + at]!;
    }
  }
  return { shape: [rows, cols], data };
}

/** `a [.., k]` times `b [n, k]`, turned. */
function timesTurned(a: Value, { shape: [n, k], data }: Value): Value {
  const rows = a.data.length / k!;
  const out = new Float64Array(rows * n!);
  for (let row = 0; row < rows; row++)
    for (let i = 0; i < n!; i++)
      for (let j = 0; j < k!; j++) out[row * n! + i]! += a.data[row * k! + j]! * data[i * k! + j]!;
  return { shape: [...a.shape.slice(0, -1), n!], data: out };
}

function turned({ shape, data }: Value): Value {
  const [rows, cols] = shape as [number, number];
  const out = Float64Array.from({ length: data.length }, (_, i) => data[(i % rows) * cols + Math.floor(i / rows)]!);
  return { shape: [cols, rows], data: out };
}

function added(a: Value, b: Value): Value {
  const [wide, narrow] = a.data.length >= b.data.length ? [a, b] : [b, a];
  return {
    shape: wide.shape,
    data: Float64Array.from(wide.data, (value, i) => value + narrow.data[i % narrow.data.length]!),
  };
}

function lookedUp(table: Value, indices: Value): Value {
  const [, cols] = table.shape as [number, number];
  const data = [...indices.data].flatMap((row) => [...table.data.slice(row * cols, (row + 1) * cols)]);
  return { shape: [...indices.shape, cols], data };
}

const OPERATORS: Readonly<Record<string, (inputs: (Value | undefined)[], node: ReadNode) => Value>> = {
  MatMul: ([a, b]) => timesTurned(a!, turned(b!)),
  Gemm([a, b, c], { attributes }) {
    const result = timesTurned(a!, attributes.transB === 1 ? b! : turned(b!));
    return c ? added(result, c) : result;
  },
  Add: ([a, b]) => added(a!, b!),
  Transpose: ([a]) => turned(a!),
  Identity: ([a]) => a!,
  Cast: ([a]) => a!,
  Gather: ([a, b]) => lookedUp(a!, b!),
  Reshape: ([a, b]) => ({ shape: [...b!.data], data: a!.data }),
  MatMulNBits([a, codes, scales, zeros, , bias], node) {
    const result = timesTurned(a!, decode(node, codes!, scales!, zeros, node.attributes.K));
    return bias ? added(result, bias) : result;
  },
  GatherBlockQuantized([codes, indices, scales, zeros], node) {
    const cols = (codes!.shape[1]! * 8) / node.attributes.bits;
    return lookedUp(decode(node, codes!, scales!, zeros, cols), indices!);
  },
};

/** The values of a graph, by their names. An If takes its first branch. */
export function compute(graph: ReadGraph, given: Readonly<Record<string, Value>>): Readonly<Record<string, Value>> {
  const values: Record<string, Value> = { ...given };
  for (const [name, { shape, type, raw }] of Object.entries(graph.tensors)) {
    if (raw) values[name] = { shape, data: numbersOf(type, raw) };
  }
  for (const node of graph.nodes) {
    if (node.op === 'If') {
      const inner = node.attributes.then_branch as ReadGraph;
      values[node.outputs[0]!] = compute(inner, values)[inner.nodes.at(-1)!.outputs[0]!]!;
      continue;
    }
    if (node.op === 'Constant') continue;
    const operator = OPERATORS[node.op];
    if (operator === undefined) throw new Error(`no operator ${node.op}`);
    const inputs = node.inputs.map((name) => {
      if (name !== '' && values[name] === undefined)
        throw new Error(`${node.op} ${node.name} reads ${name}, which is not there yet`);
      return name === '' ? undefined : values[name];
    });
    const value = operator(inputs, node);
    values[node.outputs[0]!] = value.shape.length === 0 ? { ...value, shape: [product(value.shape)] } : value;
  }
  return values;
}

/** `||a - b|| / ||b||` */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [error, size] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    error += (a[i]! - b[i]!) ** 2;
    size += b[i]! ** 2;
  }
  return a.length === b.length ? Math.sqrt(error / size) : Infinity;
}
