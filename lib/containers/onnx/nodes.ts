import { quote } from '../../messages/text.js';
import { block, bytesOfMessage, whole } from './encode.js';
import { type Field, integersOf, Message, messageOf, numberOf, type Payload, textOf } from './wire.js';

// Nodes of a graph: what they are called, read and make, and new ones.

/** Operators beside those of ONNX: MatMulNBits, GatherBlockQuantized. */
export const MICROSOFT = 'com.microsoft';

/** Most inputs and outputs of a node; of dimensions of a tensor; of numbers of an attribute that is read. */
const MOST = 4096;

export interface OnnxNode {
  /** Its field in the graph: what tells it from others. */
  readonly field: Field;
  readonly name: string;
  readonly op: string;
  /** '' for ONNX itself. */
  readonly domain: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/** An attribute, as far as it is read. */
export interface Attribute {
  readonly integer: number;
  readonly float: number;
  readonly integers: readonly number[];
  /** A tensor, read or as bytes. */
  readonly tensor: Payload | undefined;
}

const messages = new WeakMap<Field, Message>();

/** The message of a field, read where it is bytes. */
export function messageIn(field: Field, path: string): Message {
  if (field.payload instanceof Message) return field.payload;
  let message = messages.get(field);
  if (message === undefined) {
    message = messageOf(field.payload as Uint8Array, path);
    messages.set(field, message);
  }
  return message;
}

/** What a node of a graph says of itself. */
export function nodeOf(field: Field, path: string): OnnxNode {
  // Not kept: a graph has ten thousands of nodes.
  const message = field.payload instanceof Message ? field.payload : messageOf(field.payload as Uint8Array, path);
  const [inputs, outputs]: [string[], string[]] = [[], []];
  let [name, op, domain] = ['', '', ''];
  for (const { number, wire, payload } of message.fields) {
    if (wire !== 2 || number === 5) continue;
    if (number === 1) inputs.push(textOf(payload));
    else if (number === 2) outputs.push(textOf(payload));
    else if (number === 3) name = textOf(payload);
    else if (number === 4) op = textOf(payload);
    else if (number === 7) domain = textOf(payload);
  }
  return { field, name, op, domain: domain === 'ai.onnx' ? '' : domain, inputs, outputs };
}

/** What people call a node. */
export function nodeTitle({ name, op, outputs }: OnnxNode): string {
  return name === '' ? `${op} of ${quote(outputs[0] ?? '')}` : quote(name);
}

/** The attribute of a node that is called `name`; undefined where it has none. */
export function attributeOf(node: OnnxNode, name: string, path: string): Attribute | undefined {
  for (const payload of messageIn(node.field, path).all(5)) {
    const message = payload instanceof Message ? payload : messageOf(payload as Uint8Array, path);
    if (textOf(message.bytes(1)) !== name) continue;
    const float = message.bytes(2);
    return {
      integer: numberOf(message.bytes(3)),
      float: float?.length === 4 ? new DataView(float.buffer, float.byteOffset).getFloat32(0, true) : 0,
      integers: integersOf(message, 8, MOST, path),
      tensor: message.all(5).at(-1),
    };
  }
  return undefined;
}

/** A whole number that a node says, or what it is where it says none. */
export function integerAttribute(node: OnnxNode, name: string, otherwise: number, path: string): number {
  return attributeOf(node, name, path)?.integer ?? otherwise;
}

/** The graphs within a node. */
export function graphsIn({ field: { payload } }: OnnxNode): readonly Message[] {
  if (!(payload instanceof Message)) return [];
  return payload
    .all(5)
    .filter((attribute): attribute is Message => attribute instanceof Message)
    .flatMap((attribute) => [...attribute.all(6), ...attribute.all(11)])
    .filter((graph): graph is Message => graph instanceof Message);
}

/** The tensors that are read of a node's attributes, and what these are called. */
export function* tensorsIn({
  field: { payload },
}: OnnxNode): Generator<{ readonly attribute: string; readonly tensor: Message }> {
  if (!(payload instanceof Message)) return;
  for (const attribute of payload.all(5)) {
    if (!(attribute instanceof Message)) continue;
    for (const tensor of [...attribute.all(5), ...attribute.all(10)])
      if (tensor instanceof Message) yield { attribute: textOf(attribute.bytes(1)), tensor };
  }
}

/** A node that is made, as bytes: of a hundred thousand messages would be more. Inputs that are not given are ''. */
export function newNode(
  op: string,
  domain: string,
  name: string,
  inputs: readonly string[],
  output: string,
  attributes: Readonly<Record<string, number | readonly number[]>> = {},
): Field {
  const given = inputs.slice(0, inputs.findLastIndex((input) => input !== '') + 1);
  const message = new Message([
    ...given.map((input) => block(1, input)),
    block(2, output),
    ...(name === '' ? [] : [block(3, name)]),
    block(4, op),
    ...Object.entries(attributes).map(([key, value]) => {
      const fields = typeof value === 'number' ? [whole(3, value)] : value.map((one) => whole(8, one));
      return block(5, new Message([block(1, key), ...fields, whole(20, typeof value === 'number' ? 2 : 7)]));
    }),
    ...(domain === '' ? [] : [block(7, domain)]),
  ]);
  return block(1, bytesOfMessage(message));
}
