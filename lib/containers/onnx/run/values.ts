import type { GraphInput, ValueKind } from '../../runnable.js';
import { block, whole } from '../encode.js';
import type { OnnxGraph, Scope } from '../graph.js';
import { type Field, Message, messageOf, numberOf, type Payload, textOf } from '../wire.js';

// Values of a graph as it declares them (ValueInfoProto), and as parts of it do.

/** Types of tensors, as onnxruntime's bindings call them, by the numbers of TensorProto. */
const NAMES: Readonly<Record<number, string>> = {
  ...{ 1: 'float32', 2: 'uint8', 3: 'int8', 4: 'uint16', 5: 'int16', 6: 'int32', 7: 'int64', 8: 'string', 9: 'bool' },
  ...{ 10: 'float16', 11: 'float64', 12: 'uint32', 13: 'uint64', 21: 'uint4', 22: 'int4' },
};

/** Nodes that pass ids on to a table. */
const PASSING: ReadonlySet<string> = new Set(['Cast', 'Identity', 'Reshape', 'Flatten', 'Unsqueeze', 'Squeeze']);

/** Most nodes between an input and the table that it is looked up in. */
const MAX_STEPS = 8;

/** Inputs that a graph does not give itself. */
export function inputsOf(graph: OnnxGraph): readonly GraphInput[] {
  const { main, path } = graph;
  return main.message.fields.flatMap(({ number, payload }) => {
    if (number !== 11 || !(payload instanceof Uint8Array)) return [];
    const info = messageOf(payload, path);
    const name = textOf(info.bytes(1));
    if (name === '' || main.tensors.has(name)) return [];
    const tensor = inner(inner(info, 2, path), 1, path);
    const type = NAMES[numberOf(tensor?.bytes(1))] ?? 'unknown';
    return [{ name, type, dims: dimsOf(inner(tensor, 2, path), path), rows: rowsOf(graph, name) }];
  });
}

const inner = (message: Message | undefined, field: number, path: string): Message | undefined => {
  const bytes = message?.bytes(field);
  return bytes && messageOf(bytes, path);
};

function dimsOf(shape: Message | undefined, path: string): GraphInput['dims'] {
  return shape?.all(1).map((payload: Payload) => {
    const dim = messageOf(payload as Uint8Array, path);
    const size = numberOf(dim.bytes(1));
    return size > 0 ? size : textOf(dim.bytes(2));
  });
}

/** Rows of the smallest table that is looked up by a value. */
function rowsOf(graph: OnnxGraph, input: string): number | undefined {
  let least: number | undefined;
  const left: (readonly [Scope, string, number])[] = [[graph.main, input, 0]];
  for (let next = left.pop(); next; next = left.pop()) {
    const [scope, name, steps] = next;
    for (const { scope: at, node, index } of graph.usesOf(scope, name)) {
      if (node === undefined || node.domain !== '') continue;
      if (node.op === 'Gather' && index === 1) {
        const rows = graph.constantOf(at, node.inputs[0]!)?.tensor.shape[0];
        if (rows !== undefined && rows < (least ?? Infinity)) least = rows;
      } else if (index === 0 && steps < MAX_STEPS && PASSING.has(node.op) && node.outputs[0])
        left.push([at, node.outputs[0], steps + 1]);
    }
  }
  return least;
}

/** A value of a part: of a kind that is known, or as onnxruntime finds it out. */
export function valueField(number: 11 | 12, name: string, kind?: ValueKind): Field {
  if (kind === undefined) return block(number, new Message([block(1, name)]));
  const type = Number(Object.entries(NAMES).find(([, known]) => known === kind.type)?.[0] ?? 0);
  const dims = new Message(Array.from({ length: kind.rank }, () => block(1, new Message([]))));
  const tensor = new Message([whole(1, type), block(2, dims)]);
  return block(number, new Message([block(1, name), block(2, new Message([block(1, tensor)]))]));
}
