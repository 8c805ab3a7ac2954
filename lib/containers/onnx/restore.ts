import type { TensorSpec } from '../container.js';
import { block } from './encode.js';
import { LIES, weightNamed } from './forms.js';
import { FreeNames } from './free-names.js';
import type { OnnxGraph, Scope, Use } from './graph.js';
import { integerAttribute, MICROSOFT, newNode, type OnnxNode } from './nodes.js';
import { inlineMessage, newTensor, typeNumber } from './tensors.js';
import { type Field, Message, textOf } from './wire.js';

// Turns a graph back whose weights are codes: products of floats in place of MatMulNBits, look-ups in place of GatherBlockQuantized.

/** A node that computes with codes, and the tensor that they are. */
export interface CodeNode {
  readonly scope: Scope;
  readonly node: OnnxNode;
  /** Key of the codes, by which other parts of the weight are called, and of the weight that they were. */
  readonly codes: string;
  readonly base: string;
  readonly weight: string;
  /** How that lay. */
  readonly stored: 'out-in' | 'in-out';
  /** Nodes that only it needs: what reshapes a table, what corrects zeros. */
  readonly parts: readonly OnnxNode[];
  /** Where what it gives goes on: its own output, or that of the Add that corrects it. */
  readonly output: string;
  /** Keys of tensors beside the inputs that go with it. */
  readonly tensors: readonly string[];
  /** Key of the scales of what sums inputs, where zeros are corrected. */
  readonly sums: string | undefined;
  /** A value that would go with it, but that other nodes read, too. */
  readonly shared: string | undefined;
}

/** A node, before others are known. */
interface FoundNode extends Omit<CodeNode, 'weight' | 'shared'> {
  /** Keys of its inputs and of the matrix that corrects it: all that it is decoded from. */
  readonly read: readonly string[];
}

/** The tensor that an input is, as the graph has it; undefined for none, or what is computed. */
function keyOf(graph: OnnxGraph, scope: Scope, name: string | undefined): string | undefined {
  return name === undefined || name === '' ? undefined : graph.constantOf(scope, name)?.tensor.key;
}

const isNode = ({ domain, op }: OnnxNode, ...ops: string[]) =>
  ops.includes(op) && domain === (op === 'MatMulNBits' || op === 'GatherBlockQuantized' ? MICROSOFT : '');

/** Every such node of a graph, but for parts of others. */
export function codeNodes(graph: OnnxGraph): readonly CodeNode[] {
  const found: FoundNode[] = [];
  const parts = new Set<OnnxNode>();
  for (const scope of graph.scopes) {
    for (const node of scope.nodes) {
      const own = isNode(node, 'MatMulNBits', 'GatherBlockQuantized') ? codeNodeOf(graph, scope, node) : undefined;
      if (own === undefined) continue;
      found.push(own);
      for (const part of own.parts) parts.add(part);
    }
  }
  const own = found.filter(({ node }) => !parts.has(node));
  const swapped = new Set([...parts, ...own.map(({ node }) => node)]);
  const isSwapped = ({ node }: Use) => node !== undefined && swapped.has(node);
  const homes = homesOf(graph);
  const goes = once((key: string) => graph.usesOf(homes.get(key)!, graph.tensors.get(key)!.name).every(isSwapped));
  const isInner = once((part: OnnxNode, scope: Scope) =>
    part.outputs.every((name) => graph.usesOf(graph.homeOf(scope, name) ?? scope, name).every(isSwapped)),
  );
  const tables = new Set(own.flatMap(({ node, codes }) => (node.op === 'GatherBlockQuantized' ? [codes] : [])));
  const made = new Set<string>();
  const names = new FreeNames((name) => graph.values.has(name) || graph.tensors.has(name) || made.has(name));
  const weightOf = once((codes: string, base: string) => {
    const weight = base === codes ? base : names.of(base);
    made.add(weight);
    return weight;
  });
  return own.map((one) => {
    const { scope, codes, base } = one;
    const part = one.parts.find((other) => other.outputs[0] !== one.output && !isInner(other, scope));
    return {
      ...one,
      weight: weightOf(codes, base),
      // Tables are looked up by rows, whatever is multiplied by the same codes.
      stored: tables.has(codes) && !LIE.has(noteOf(graph, codes)) ? 'out-in' : one.stored,
      tensors: one.tensors.filter((key) => goes(key)),
      shared: one.read.find((key) => !goes(key)) ?? part?.outputs[0],
    };
  });
}

const LIE: ReadonlySet<string> = new Set(Object.values(LIES));

/** What a tensor says of the weight that it was. */
const noteOf = (graph: OnnxGraph, key: string): string => textOf(graph.tensors.get(key)!.message.bytes(12));

/** The graphs that tensors are of, by their keys. */
function homesOf(graph: OnnxGraph): ReadonlyMap<string, Scope> {
  const homes = new Map<string, Scope>();
  for (const scope of graph.scopes)
    for (const { key } of scope.tensors.values()) if (key !== undefined) homes.set(key, scope);
  return homes;
}

/** A function that is asked but once of each of what it is first given. */
function once<Key, More extends unknown[], Value>(ask: (key: Key, ...more: More) => Value) {
  const known = new Map<Key, Value>();
  return (key: Key, ...more: More): Value => {
    if (!known.has(key)) known.set(key, ask(key, ...more));
    return known.get(key)!;
  };
}

function codeNodeOf(graph: OnnxGraph, scope: Scope, node: OnnxNode): FoundNode | undefined {
  const isTable = node.op === 'GatherBlockQuantized';
  let name = node.inputs[isTable ? 0 : 1] ?? '';
  const parts: OnnxNode[] = [];
  const tensors: (string | undefined)[] = [];
  const reshape = isTable ? graph.homeOf(scope, name)?.producers.get(name) : undefined;
  if (reshape && isNode(reshape, 'Reshape')) {
    parts.push(reshape);
    tensors.push(keyOf(graph, scope, reshape.inputs[1]));
    name = reshape.inputs[0] ?? '';
  }
  const constant = graph.constantOf(scope, name);
  const codes = constant?.tensor.key;
  if (codes === undefined) return undefined;
  const stored = noteOf(graph, codes) === LIES['out-in'] ? 'out-in' : 'in-out';
  const base = weightNamed(codes)?.key ?? codes;
  const correction = isTable ? undefined : correctionOf(graph, scope, node, base);
  const inputs = node.inputs.slice(2, 4).map((input) => keyOf(graph, scope, input)); // scales, zero points
  return {
    ...{ scope, node, codes, base, stored, sums: correction?.sums },
    read: [codes, ...inputs, ...(correction?.matrix ?? [])].filter((key) => key !== undefined),
    parts: [...parts, ...(correction?.parts ?? [])],
    output: correction?.output ?? node.outputs[0] ?? '',
    tensors: [...tensors, ...(correction?.tensors ?? [])].filter((key) => key !== undefined),
  };
}

/** What corrects the zeros of a node: Add(node, product of the sums of its inputs' blocks). */
function correctionOf(graph: OnnxGraph, scope: Scope, node: OnnxNode, weight: string) {
  const [output] = node.outputs;
  if (output === undefined) return undefined;
  const [use, more] = graph.usesOf(scope, output);
  const add = use?.node;
  if (more || add === undefined || !isNode(add, 'Add') || use!.scope !== scope) return undefined;
  const product = scope.producers.get(add.inputs[1 - use!.index] ?? '');
  if (product === undefined || !isNode(product, 'MatMul', 'MatMulNBits')) return undefined;
  const matrix = keyOf(graph, scope, product.inputs[1]);
  if (matrix !== `${weight}_corr` && matrix !== `${weight}_corr_Q8`) return undefined;
  const sums = scope.producers.get(product.inputs[0] ?? '');
  if (sums === undefined || !isNode(sums, 'MatMulNBits')) return undefined;
  const [own, others] = [product, sums].map(({ inputs }) => inputs.slice(1).map((name) => keyOf(graph, scope, name)));
  return {
    ...{ parts: [add, product, sums], output: add.outputs[0] ?? '', matrix: own! },
    ...{ tensors: [...own!, ...others!], sums: others![1] },
  };
}

/** A model with the weights of `specs`, by their keys, in place of codes. */
export function restoreModel(model: Message, graph: OnnxGraph, specs: ReadonlyMap<string, TensorSpec>): Message {
  const swaps = new Map<Field, readonly Field[]>();
  const goneKeys = new Set<string>();
  const tensors = new Map<Scope, Field[]>();
  const made = new Set<string>();
  const homes = homesOf(graph);
  for (const own of codeNodes(graph)) {
    const spec = specs.get(own.weight);
    if (spec === undefined) continue;
    const { scope, node, codes } = own;
    for (const part of own.parts) swaps.set(part.field, []);
    swaps.set(node.field, plainNodes(graph, own, spec));
    const inputs = node.op === 'MatMulNBits' ? node.inputs.slice(1, 4) : node.inputs.slice(2);
    for (const key of [codes, ...own.tensors, ...inputs.map((name) => keyOf(graph, scope, name))])
      if (key !== undefined) goneKeys.add(key);
    if (made.has(own.weight)) continue;
    made.add(own.weight);
    const bytes = spec.shape.reduce((product, size) => product * size, spec.type.blockBytes);
    const home = homes.get(codes)!;
    const field = block(5, inlineMessage(newTensor(own.weight, spec.type, spec.shape), own.weight, bytes));
    const others = tensors.get(home);
    if (others) others.push(field);
    else tensors.set(home, [field]);
  }
  if (made.size === 0) return model;
  const gone = new Set([...goneKeys].map((key) => graph.tensors.get(key)!.message));
  const rebuilt = (scope: Scope): Message => {
    const inner = new Map(scope.children.map((child) => [child.message, rebuilt(child)]));
    const fields = scope.message.fields.flatMap((field) => {
      if (field.number === 5 && gone.has(field.payload as Message)) return [];
      return field.number === 1 ? (swaps.get(field) ?? [withGraphs(field, inner)]) : [field];
    });
    return new Message([...fields, ...(tensors.get(scope) ?? [])]);
  };
  return new Message(model.fields.map((field) => (field.number === 7 ? block(7, rebuilt(graph.main)) : field)));
}

/** The nodes in place of one with codes. */
function plainNodes(
  graph: OnnxGraph,
  { node, weight, stored, output, scope }: CodeNode,
  { type }: TensorSpec,
): readonly Field[] {
  const isTable = node.op === 'GatherBlockQuantized';
  const fields: Field[] = [];
  const { name } = node;
  const named = (part: string) => (name === '' ? '' : `${name}_${part}`);
  let matrix = weight;
  const scale = graph.constantOf(scope, node.inputs[2] ?? '')?.tensor.type;
  // Weights take the type that they are computed in, whatever they are written in.
  if (scale !== undefined && scale.name !== type.name) {
    matrix = `${output}_cast`;
    fields.push(newNode('Cast', '', named('cast'), [weight], matrix, { to: typeNumber(scale) }));
  }
  if (isTable) {
    fields.push(
      newNode('Gather', '', name, [matrix, node.inputs[1] ?? ''], output, {
        axis: integerAttribute(node, 'gather_axis', 0, graph.path),
      }),
    );
    return fields;
  }
  if (stored === 'out-in') {
    fields.push(newNode('Transpose', '', named('turned'), [matrix], `${output}_turned`, { perm: [1, 0] }));
    matrix = `${output}_turned`;
  }
  const bias = node.inputs[5] ?? '';
  fields.push(newNode('MatMul', '', name, [node.inputs[0] ?? '', matrix], bias === '' ? output : `${output}_product`));
  if (bias !== '') fields.push(newNode('Add', '', named('bias'), [`${output}_product`, bias], output));
  return fields;
}

function withGraphs(field: Field, graphs: ReadonlyMap<Message, Message>): Field {
  if (!(field.payload instanceof Message) || graphs.size === 0) return field;
  const fields = field.payload.fields.map((attribute) => {
    if (!(attribute.payload instanceof Message)) return attribute;
    const inner = attribute.payload.fields.map((own) => {
      const other = own.payload instanceof Message ? graphs.get(own.payload) : undefined;
      return other ? { ...own, payload: other } : own;
    });
    return { ...attribute, payload: new Message(inner) };
  });
  return { ...field, payload: new Message(fields) };
}
