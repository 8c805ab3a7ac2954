import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { TensorSpec } from '../container.js';
import { storedFloat, storedType } from '../stored-types.js';
import { block, whole } from './encode.js';
import { blocksOf, bytesOfBlock, LIES, type NodeForm, partNames, SUMS, sumsScale } from './forms.js';
import { FreeNames } from './free-names.js';
import type { OnnxGraph, Scope } from './graph.js';
import { MICROSOFT, newNode } from './nodes.js';
import { inlineMessage, newTensor, smallTensor } from './tensors.js';
import { biasOf, type Weight, type WeightUse } from './weights.js';
import { type Field, Message, messageOf, textOf } from './wire.js';

/** A weight that becomes codes, and the tensors that hold them. */
export interface Replacement {
  readonly weight: Weight;
  readonly form: NodeForm;
  readonly tensors: readonly TensorSpec[];
}

/** What becomes of nodes: others in their place, or nothing. */
type Swaps = Map<Field, (made: ScopeNodes) => readonly Field[]>;

/** A model whose weights are replaced: the same but for the nodes and tensors that this takes. */
export function rewriteModel(model: Message, graph: OnnxGraph, replacements: readonly Replacement[]): Message {
  if (replacements.length === 0) return model;
  return new Rewriting(graph, replacements).model(model);
}

class Rewriting {
  readonly #graph: OnnxGraph;
  readonly #swaps: Swaps = new Map();
  readonly #gone = new Set<Field>();
  /** Messages of tensors, and names of them that inputs of a graph repeat. */
  readonly #goneTensors = new Set<Message>();
  readonly #goneNames = new Map<Scope, Set<string>>();
  readonly #tensors = new Map<Scope, Field[]>();
  /** Tensors that sum inputs, by the features and the block. */
  readonly #sums = new Set<string>();
  /** Names of values that are new. */
  readonly #made = new Set<string>();
  readonly #free = new FreeNames((name) => this.#graph.values.has(name) || this.#made.has(name));

  constructor(graph: OnnxGraph, replacements: readonly Replacement[]) {
    this.#graph = graph;
    for (const replacement of replacements) this.#replace(replacement);
  }

  model(model: Message): Message {
    const fields = model.fields.map((field) => (field.number === 7 ? block(7, this.#scope(this.#graph.main)) : field));
    const domains = model.all(8).map((payload) => textOf(messageOf(payload as Uint8Array, this.#graph.path).bytes(1)));
    if (!domains.includes(MICROSOFT)) fields.push(block(8, new Message([block(1, MICROSOFT), whole(2, 1)])));
    return new Message(fields);
  }

  #replace(replacement: Replacement): void {
    const { weight, form, tensors } = replacement;
    const { tensor, scope, uses, links } = weight;
    const lies = LIES[weight.stored];
    for (const [i, { name, type, shape }] of tensors.entries()) {
      this.#demandFree(name, tensor.name);
      const bytes = shape.reduce((product, size) => product * size, type.blockBytes);
      const message = inlineMessage(newTensor(name, type, shape, i === 0 ? lies : undefined), name, bytes);
      this.#made.add(name);
      this.#addTensor(scope, block(5, message));
    }
    for (const { node } of links) this.#gone.add(node!.field);
    const producer = scope.producers.get(tensor.name);
    if (producer) this.#gone.add(producer.field);
    else {
      this.#goneTensors.add(tensor.message);
      const names = this.#goneNames.get(scope) ?? new Set();
      this.#goneNames.set(scope, names.add(tensor.name));
    }
    for (const use of uses) {
      if (use.kind === 'Gather') this.#swaps.set(use.node.field, (made) => lookUp(replacement, use, made));
      else this.#multiply(replacement, use);
    }
    if (tensors[0]!.shape.length === 3 && uses.some(({ kind }) => kind === 'Gather')) this.#addTableShape(replacement);
    if (form.correction) this.#addSums(weight, form);
  }

  #multiply(replacement: Replacement, use: WeightUse): void {
    const bias = biasOf(this.#graph, replacement.weight, use);
    const at = bias?.add ?? use.node;
    if (bias?.add) this.#gone.add(use.node.field);
    this.#swaps.set(at.field, (made) => multiply(replacement, use, bias?.name, at.outputs[0]!, made));
  }

  #demandFree(name: string, weight: string): void {
    if (!this.#graph.values.has(name)) return;
    const message = `Expected ${quote(weight)} to be quantized into names of its own, but ${plain(this.#graph.path)} has ${quote(name)} already`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Exclude it.`);
  }

  #fresh(name: string): string {
    const own = this.#free.of(name);
    this.#made.add(own);
    return own;
  }

  #addTensor(scope: Scope, field: Field): void {
    const fields = this.#tensors.get(scope);
    if (fields) fields.push(field);
    else this.#tensors.set(scope, [field]);
  }

  /** The shape that a table has to be looked up in, where products have another one. */
  #addTableShape({ weight, tensors }: Replacement): void {
    const [{ name, shape }] = tensors as readonly [TensorSpec];
    const [rows, blocks, size] = shape as readonly [number, number, number];
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setBigInt64(0, BigInt(rows), true);
    view.setBigInt64(8, BigInt(blocks * size), true);
    this.#demandFree(`${name}_shape`, weight.tensor.name);
    this.#made.add(`${name}_shape`);
    this.#addTensor(weight.scope, smallTensor(`${name}_shape`, storedType('I64'), [2], bytes));
  }

  /** A matrix of ones, or of what makes means of sums: what it makes of inputs are the sums of their blocks, whatever their rank. */
  #addSums({ shape: [, ins], tensor }: Weight, form: NodeForm): void {
    const name = sumsName(ins, form);
    if (this.#sums.has(name)) return;
    this.#sums.add(name);
    for (const part of [`${name}_Q4`, `${name}_scales`]) {
      this.#demandFree(part, tensor.name);
      this.#made.add(part);
    }
    const blocks = blocksOf(ins, form.block);
    const codes = new Uint8Array(blocks * blocks * bytesOfBlock(form.block, 4)).fill(0x99);
    const type = storedFloat(form.dtype);
    const scales = new Uint8Array(blocks * blocks * type.blockBytes);
    const exponent = Math.log2(sumsScale(form));
    const one = form.dtype === 'float32' ? [0, 0, 0x80, 0x3f] : [0, (15 + exponent) << 2];
    for (let i = 0; i < blocks; i++) scales.set(one, i * (blocks + 1) * type.blockBytes);
    const shape = [blocks, blocks, bytesOfBlock(form.block, 4)];
    this.#addTensor(this.#graph.main, smallTensor(`${name}_Q4`, storedType('U8'), shape, codes));
    this.#addTensor(this.#graph.main, smallTensor(`${name}_scales`, type, [blocks, blocks], scales));
  }

  /** A graph as it becomes; the same where nothing of it changes. */
  #scope(scope: Scope): Message {
    const made = new ScopeNodes((name) => this.#fresh(name));
    const inner = new Map(scope.children.map((child) => [child.message, this.#scope(child)]));
    const names = this.#goneNames.get(scope);
    const fields: Field[] = [];
    for (const field of scope.message.fields) {
      const { number, payload } = field;
      if (number === 1) {
        const swap = this.#swaps.get(field);
        if (swap) fields.push(...swap(made));
        else if (!this.#gone.has(field)) fields.push(withGraphs(field, inner));
      } else if (number === 5 && this.#goneTensors.has(payload as Message)) {
      } else if (number === 11 && names?.has(textOf(messageOf(payload as Uint8Array, this.#graph.path).bytes(1)))) {
      } else fields.push(field);
    }
    fields.push(...(this.#tensors.get(scope) ?? []));
    const same =
      fields.length === scope.message.fields.length && fields.every((field, i) => field === scope.message.fields[i]);
    return same ? scope.message : new Message(fields);
  }
}

/** A node with other graphs in it. */
function withGraphs(field: Field, graphs: ReadonlyMap<Message, Message>): Field {
  if (!(field.payload instanceof Message) || graphs.size === 0) return field;
  let changed = false;
  const swapped = (message: Message, depth: number): Message =>
    new Message(
      message.fields.map((own) => {
        if (!(own.payload instanceof Message)) return own;
        if (depth === 0) return { ...own, payload: swapped(own.payload, 1) };
        const other = graphs.get(own.payload);
        if (other === undefined || other === own.payload) return own;
        changed = true;
        return { ...own, payload: other };
      }),
    );
  const message = swapped(field.payload, 0);
  return changed ? { ...field, payload: message } : field;
}

/** Nodes that several others of a graph share: each is made right before the first that needs it. */
class ScopeNodes {
  /** A name that no value has yet. */
  readonly fresh: (name: string) => string;
  readonly #made = new Map<string, string>();

  constructor(fresh: (name: string) => string) {
    this.fresh = fresh;
  }

  /** The value of a node that is made once. */
  once(key: string, fields: Field[], make: () => { readonly field: Field; readonly value: string }): string {
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const { field, value } = make();
    fields.push(field);
    this.#made.set(key, value);
    return value;
  }
}

const sumsName = (ins: number, { block: size, dtype }: NodeForm) =>
  `${SUMS}_${ins}_${size}${dtype === 'float16' ? '_f16' : ''}`;

/** The nodes in place of a product. */
function multiply(
  { weight, form }: Replacement,
  { node, kind }: WeightUse,
  bias: string | undefined,
  output: string,
  made: ScopeNodes,
): readonly Field[] {
  const [outs, ins] = weight.shape;
  const names = partNames(weight.tensor.key!, form.bits);
  const [input] = node.inputs as [string];
  const fields: Field[] = [];
  const attributes = { K: ins, N: outs, bits: form.bits, block_size: form.block };
  const level = form.accuracy === 0 ? {} : { accuracy_level: form.accuracy };
  // What Gemm adds that is no vector of outputs is added by a node of its own.
  const rest = kind === 'Gemm' && bias === undefined ? (node.inputs[2] ?? '') : '';
  const whole = rest === '' ? output : made.fresh(`${output}_product`);
  const product = form.correction ? made.fresh(`${output}_codes`) : whole;
  const named = (part: string) => (node.name === '' ? '' : `${node.name}_${part}`);
  fields.push(
    newNode(
      ...(['MatMulNBits', MICROSOFT, named(`Q${form.bits}`)] as const),
      [input, names.codes, names.scales, form.zeros ? names.zeros : '', '', bias ?? ''],
      product,
      { ...attributes, ...level },
    ),
  );
  if (form.correction) {
    const blocks = blocksOf(ins, form.block);
    const sums = made.once(`${input}\0${ins}\0${form.block}`, fields, () => {
      const name = sumsName(ins, form);
      const value = made.fresh(`${input}_sums_${form.block}`);
      const of = { K: ins, N: blocks, bits: 4, block_size: form.block };
      const inputs = [input, `${name}_Q4`, `${name}_scales`];
      return { field: newNode('MatMulNBits', MICROSOFT, named('sums'), inputs, value, of), value };
    });
    const part = made.fresh(`${output}_corr`);
    fields.push(
      form.correction.kind === 'float'
        ? newNode('MatMul', '', named('corr'), [sums, names.correction], part)
        : newNode(
            ...(['MatMulNBits', MICROSOFT, named('corr')] as const),
            [sums, names.correctionCodes, names.correctionScales, names.correctionZeros],
            part,
            { K: blocks, N: outs, bits: 8, block_size: form.correction.block, accuracy_level: 4 },
          ),
      newNode('Add', '', named('zeros'), [product, part], whole),
    );
  }
  if (rest !== '') fields.push(newNode('Add', '', named('bias'), [whole, rest], output));
  return fields;
}

/** The nodes in place of a look-up in a table. */
function lookUp(
  { weight, form, tensors: [codes] }: Replacement,
  { node }: WeightUse,
  made: ScopeNodes,
): readonly Field[] {
  const names = partNames(weight.tensor.key!, form.bits);
  const fields: Field[] = [];
  const table =
    codes!.shape.length === 2
      ? names.codes
      : made.once(`${names.codes}\0table`, fields, () => {
          const value = made.fresh(`${names.codes}_table`);
          return { field: newNode('Reshape', '', value, [names.codes, `${names.codes}_shape`], value), value };
        });
  const inputs = [table, node.inputs[1]!, names.scales, form.zeros ? names.zeros : ''];
  const attributes = { bits: form.bits, block_size: form.block, gather_axis: 0, quantize_axis: 1 };
  const name = node.name === '' ? '' : `${node.name}_Q${form.bits}`;
  fields.push(newNode('GatherBlockQuantized', MICROSOFT, name, inputs, node.outputs[0]!, attributes));
  return fields;
}
