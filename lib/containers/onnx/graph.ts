import type { Steps } from '../../files/event-loop.js';
import { formatError, quote } from '../../messages/text.js';
import { FreeNames } from './free-names.js';
import { attributeOf, graphsIn, integerAttribute, nodeOf, type OnnxNode, tensorsIn } from './nodes.js';
import { type OnnxTensor, tensorOf } from './tensors.js';
import { Message, messageOf, type Payload, textOf } from './wire.js';

// A graph with the graphs within it: which node makes a value, which ones read it, and what a value is a constant of.

/** One graph. Values of the graphs around it are its own, too. */
export interface Scope {
  readonly message: Message;
  readonly parent: Scope | undefined;
  readonly nodes: readonly OnnxNode[];
  /** By their names. Of Constant nodes, too. */
  readonly tensors: ReadonlyMap<string, OnnxTensor>;
  /** By the values that they make. */
  readonly producers: ReadonlyMap<string, OnnxNode>;
  readonly inputs: ReadonlySet<string>;
  readonly outputs: ReadonlySet<string>;
  readonly children: readonly Scope[];
}

/** A node, or the end of a graph, that reads a value. */
export interface Use {
  readonly scope: Scope;
  /** Absent: the value is what the graph gives. */
  readonly node?: OnnxNode;
  readonly index: number;
}

/** What a value is a constant of. */
export interface Constant {
  readonly tensor: OnnxTensor;
  readonly scope: Scope;
  /** Whether it is the transpose of the tensor. */
  readonly transposed: boolean;
  /** What it was cast to, last, or on the way to what is no float; undefined where it was not. */
  readonly cast: number | undefined;
}

/** Nodes between a tensor and what computes with it; there are two or three. */
const MAX_CHAIN = 64;

/** Numbers of types whose values a cast keeps, but for their last digits: float32, float16, double, bfloat16. */
const FLOATS: ReadonlySet<number> = new Set([1, 10, 11, 16]);

/** All of a model. */
export class OnnxGraph {
  readonly path: string;
  readonly main: Scope;
  readonly scopes: readonly Scope[];
  /** By their keys: those whose numbers lie together. */
  readonly tensors: ReadonlyMap<string, OnnxTensor>;
  /** Names of all values, in all graphs. */
  readonly values: ReadonlySet<string>;
  readonly #uses = new Map<Scope, Map<string, Use[]>>();

  private constructor(
    path: string,
    main: Scope,
    scopes: readonly Scope[],
    tensors: ReadonlyMap<string, OnnxTensor>,
    values: ReadonlySet<string>,
  ) {
    this.path = path;
    this.main = main;
    this.scopes = scopes;
    this.tensors = tensors;
    this.values = values;
  }

  /** @throws {HqqError} `ERR_CHECKPOINT_FORMAT` for two tensors of one name, values that two nodes make. */
  static *index(model: Message, path: string): Steps<OnnxGraph> {
    const maker = new Maker(path);
    const main = yield* maker.scope(model.all(7)[0] as Message, undefined);
    const graph = new OnnxGraph(path, main, maker.scopes, maker.tensors, maker.values);
    for (const scope of graph.scopes) {
      for (const node of scope.nodes) {
        for (const [index, name] of node.inputs.entries()) graph.#addUse(name, { scope, node, index });
        yield;
      }
      for (const name of scope.outputs) graph.#addUse(name, { scope, index: 0 });
    }
    return graph;
  }

  /** Who reads a value of a graph, there and in the graphs within. */
  usesOf(scope: Scope, name: string): readonly Use[] {
    return this.#uses.get(scope)?.get(name) ?? [];
  }

  /** The graph whose value a name is where `scope` uses it. */
  homeOf(scope: Scope, name: string): Scope | undefined {
    for (let at: Scope | undefined = scope; at; at = at.parent)
      if (at.tensors.has(name) || at.producers.has(name) || at.inputs.has(name)) return at;
    return undefined;
  }

  /** The tensor that a value is, through nodes that only pass it on; undefined where it is computed. */
  constantOf(scope: Scope, name: string): Constant | undefined {
    let [transposed, cast]: [boolean, number | undefined] = [false, undefined];
    let at: Scope | undefined = scope;
    let value = name;
    for (let steps = 0; steps < MAX_CHAIN; steps++) {
      at = this.homeOf(at, value);
      if (at === undefined) return undefined;
      const tensor = at.tensors.get(value);
      if (tensor) return { tensor, scope: at, transposed, cast };
      const node = at.producers.get(value);
      const passed = node && this.#passedBy(node);
      if (passed === undefined) return undefined;
      transposed = transposed !== passed.turned;
      if (passed.cast !== undefined && (cast === undefined || !FLOATS.has(passed.cast))) cast = passed.cast;
      value = node!.inputs[0]!;
    }
    throw formatError(
      this.path,
      `value ${quote(name)} comes from ${MAX_CHAIN} nodes that only pass it on, or from itself.`,
    );
  }

  /** What a node does that only passes a matrix on. */
  #passedBy(node: OnnxNode): { readonly turned: boolean; readonly cast?: number } | undefined {
    if (node.domain !== '' || node.inputs.length === 0 || node.outputs.length !== 1) return undefined;
    if (node.op === 'Identity') return { turned: false };
    if (node.op === 'Cast') return { turned: false, cast: integerAttribute(node, 'to', 0, this.path) };
    if (node.op !== 'Transpose') return undefined;
    const perm = attributeOf(node, 'perm', this.path)?.integers;
    if (perm === undefined || perm.join() === '1,0') return { turned: true };
    return perm.join() === '0,1' ? { turned: false } : undefined;
  }

  /** Every use of a tensor that computes with it, past nodes that only pass it on; and those nodes. */
  endsOf(scope: Scope, name: string): { readonly ends: readonly Use[]; readonly links: readonly Use[] } {
    const [ends, links]: [Use[], Use[]] = [[], []];
    const left: (readonly [Scope, string])[] = [[scope, name]];
    const seen = new Map<Scope, Set<string>>();
    for (let next = left.pop(); next; next = left.pop()) {
      for (const use of this.usesOf(...next)) {
        const { node } = use;
        if (node === undefined || this.#passedBy(node) === undefined) {
          ends.push(use);
          continue;
        }
        links.push(use);
        const [output] = node.outputs as [string];
        let known = seen.get(use.scope);
        if (!known) seen.set(use.scope, (known = new Set()));
        if (!known.has(output)) left.push([use.scope, output]);
        known.add(output);
      }
    }
    return { ends, links };
  }

  #addUse(name: string, use: Use): void {
    if (name === '') return;
    const home = this.homeOf(use.scope, name) ?? use.scope;
    let uses = this.#uses.get(home);
    if (!uses) this.#uses.set(home, (uses = new Map()));
    const own = uses.get(name);
    if (own) own.push(use);
    else uses.set(name, [use]);
  }
}

/** Makes the graphs of a model. */
class Maker {
  readonly scopes: Scope[] = [];
  readonly tensors = new Map<string, OnnxTensor>();
  readonly values = new Set<string>();
  /** Messages of tensors that are indexed. */
  readonly #known = new Set<Message>();
  readonly #keys = new FreeNames((key) => this.tensors.has(key), '#');
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  *scope(message: Message, parent: Scope | undefined): Steps<Scope> {
    const nodes: OnnxNode[] = [];
    const tensors = new Map<string, OnnxTensor>();
    const producers = new Map<string, OnnxNode>();
    const [inputs, outputs] = [new Set<string>(), new Set<string>()];
    const children: Scope[] = [];
    const scope: Scope = { message, parent, nodes, tensors, producers, inputs, outputs, children };
    this.scopes.push(scope);
    const twice = (name: string): never => {
      throw formatError(
        this.#path,
        `two nodes or tensors of a graph make the value ${quote(name)}. The file is damaged.`,
      );
    };
    for (const field of message.fields) {
      const { number, wire, payload } = field;
      if (wire !== 2) continue;
      if (number === 5 && payload instanceof Message) {
        const tensor = this.#tensor(payload, undefined);
        if (tensors.has(tensor.name)) twice(tensor.name);
        tensors.set(tensor.name, tensor);
      } else if (number === 11 || number === 12) {
        const name = textOf(messageOf(payload as Uint8Array, this.#path).bytes(1));
        (number === 11 ? inputs : outputs).add(name);
        this.values.add(name);
      } else if (number === 1) nodes.push(nodeOf(field, this.#path));
      yield;
    }
    for (const node of nodes) {
      for (const name of node.outputs) {
        if (name === '') continue;
        if (producers.has(name) || tensors.has(name)) twice(name);
        producers.set(name, node);
        this.values.add(name);
      }
      if (node.op === 'Constant' && node.domain === '') this.#constant(node, tensors);
      // What other attributes hold (ConstantOfShape) is no weight, but is written again as every tensor is.
      for (const { attribute, tensor } of tensorsIn(node)) {
        if (!this.#known.has(tensor)) this.#tensor(tensor, `${node.outputs[0] || node.name || node.op}.${attribute}`);
      }
      for (const graph of graphsIn(node)) children.push(yield* this.scope(graph, scope));
      yield;
    }
    return scope;
  }

  /** The tensor of a Constant node, if it has one whose numbers lie together. */
  #constant(node: OnnxNode, tensors: Map<string, OnnxTensor>): void {
    const [name] = node.outputs;
    const value: Payload | undefined = attributeOf(node, 'value', this.#path)?.tensor;
    if (name === undefined || name === '' || !(value instanceof Message)) return;
    tensors.set(name, this.#tensor(value, name));
  }

  #tensor(message: Message, called: string | undefined): OnnxTensor {
    this.#known.add(message);
    const tensor: { -readonly [K in keyof OnnxTensor]: OnnxTensor[K] } = tensorOf(message, this.#path, called);
    this.values.add(tensor.name);
    if (tensor.hole === undefined && tensor.external === undefined && tensor.spelt === undefined) return tensor;
    if (tensor.name === '') throw formatError(this.#path, 'a tensor has no name. The file is damaged.');
    tensor.key = this.#keys.of(tensor.name);
    this.tensors.set(tensor.key, tensor);
    if (tensor.hole) tensor.hole.entry = tensor.key;
    return tensor;
  }
}
