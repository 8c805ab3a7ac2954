import type { GraphPart, Tap } from '../../runnable.js';
import type { OnnxGraph, Scope } from '../graph.js';
import { graphsIn, type OnnxNode } from '../nodes.js';
import type { Message } from '../wire.js';
import { piecesOf, type SlicedProduct, slicedProduct } from './pieces.js';

// Cuts a graph into parts that run one after another, each with few weights: so models are run that memory does not hold.

/** Most bytes of the weights of a part, and of what is tapped of a text of 256 tokens; one node that is no product may have more. */
const PART_BYTES = 64 * 1024 * 1024;
const TAP_ROWS = 256;

/** Operators that are computed again in every part that needs them, where they read nothing but constants. */
const LIGHT: ReadonlySet<string> = new Set([
  'Constant',
  'Identity',
  'Cast',
  'Transpose',
  'Reshape',
  'Squeeze',
  'Unsqueeze',
  'ConstantOfShape',
]);

/** A part: its nodes in their order, with those of constants among them, and the constants of the graph that it reads. */
export interface Cut extends Omit<GraphPart, 'model'> {
  readonly nodes: readonly OnnxNode[];
  readonly constants: ReadonlySet<string>;
  /** One whose matrix is larger than a part may be. */
  readonly product?: SlicedProduct;
}

/** The parts of a graph that compute what is tapped, and nothing else. `most`: bytes of a part. */
export function cutGraph(graph: OnnxGraph, taps: readonly Tap[], most = PART_BYTES): readonly Cut[] {
  return new Cutter(graph, taps).cuts(most);
}

class Cutter {
  readonly #graph: OnnxGraph;
  readonly #taps: ReadonlyMap<string, Tap>;
  readonly #reads = new Map<OnnxNode, readonly string[]>();
  /** Nodes of constants, by what they make. */
  readonly #light = new Map<string, OnnxNode>();

  constructor(graph: OnnxGraph, taps: readonly Tap[]) {
    this.#graph = graph;
    this.#taps = new Map(taps.map((tap) => [tap.value, tap]));
    const scopes = new Map(graph.scopes.map((scope) => [scope.message, scope]));
    for (const node of graph.main.nodes) {
      const reads = [...new Set([...node.inputs, ...this.#captured(node, scopes)])].filter((name) => name !== '');
      this.#reads.set(node, reads);
      if (node.domain !== '' || !LIGHT.has(node.op) || !reads.every((name) => this.#isConstant(name))) continue;
      for (const name of node.outputs) if (!graph.main.tensors.has(name)) this.#light.set(name, node);
    }
  }

  cuts(most: number): readonly Cut[] {
    const nodes = this.#needed();
    const groups: OnnxNode[][] = [];
    let [bytes, known]: [number, Set<string>] = [Infinity, new Set()];
    for (const node of nodes) {
      const own = this.#bytesOf(node, known);
      if (groups.length === 0 || bytes + own > most) {
        groups.push([]);
        [bytes, known] = [0, new Set()];
      }
      groups.at(-1)!.push(node);
      bytes += this.#bytesOf(node, known);
      for (const name of this.#constantsOf(node)) known.add(name);
    }
    // Which part reads a value last: from the end on.
    const later = new Set<string>();
    const cuts: Cut[] = [];
    for (const group of groups.toReversed()) {
      cuts.unshift(this.#cut(group, later, most));
      for (const name of cuts[0]!.inputs) later.add(name);
    }
    return cuts;
  }

  #cut(group: readonly OnnxNode[], later: ReadonlySet<string>, most: number): Cut {
    const made = new Set(group.flatMap(({ outputs }) => outputs));
    const constants = new Set(group.flatMap((node) => [...this.#constantsOf(node)]));
    const light = new Set([...constants].flatMap((name) => (this.#light.has(name) ? [this.#light.get(name)!] : [])));
    const inputs = new Set(
      group.flatMap((node) => this.#reads.get(node)!).filter((name) => !made.has(name) && !this.#isConstant(name)),
    );
    const taps = [...made].flatMap((name) => this.#taps.get(name) ?? []);
    const outputs = [...made].filter((name) => name !== '' && (later.has(name) || this.#taps.has(name)));
    const last = [...inputs, ...outputs].filter((name) => !later.has(name));
    const nodes = this.#graph.main.nodes.filter((node) => light.has(node));
    const cut = { inputs: [...inputs], outputs, last, taps, nodes: [...nodes, ...group], constants };
    const product = group.length === 1 ? slicedProduct(this.#graph, group[0]!) : undefined;
    const isLarge = product && [...product.tensors.values()].some(({ tensor }) => tensor.bytes > most);
    // A piece lies in the model's bytes: it is in memory twice.
    return isLarge ? { ...cut, product, pieces: piecesOf(product, most / 2) } : cut;
  }

  /** Nodes whose values are needed, but for those of constants, in their order. */
  #needed(): readonly OnnxNode[] {
    const wanted = new Set(this.#taps.keys());
    const needed: OnnxNode[] = [];
    for (const node of this.#graph.main.nodes.toReversed()) {
      if (!node.outputs.some((name) => wanted.has(name)) || node.outputs.some((name) => this.#isConstant(name)))
        continue;
      needed.push(node);
      for (const name of this.#reads.get(node)!) wanted.add(name);
    }
    return needed.toReversed();
  }

  #isConstant(name: string): boolean {
    return this.#graph.main.tensors.has(name) || this.#light.has(name);
  }

  /** Constants that a node reads, and those that these are made of. */
  #constantsOf(node: OnnxNode): ReadonlySet<string> {
    const found = new Set<string>();
    const left = [...this.#reads.get(node)!];
    for (let name = left.pop(); name !== undefined; name = left.pop()) {
      if (!this.#isConstant(name) || found.has(name)) continue;
      found.add(name);
      const light = this.#light.get(name);
      if (light) left.push(...this.#reads.get(light)!);
    }
    return found;
  }

  #bytesOf(node: OnnxNode, known: ReadonlySet<string>): number {
    let bytes = 0;
    for (const name of this.#constantsOf(node))
      if (!known.has(name)) bytes += this.#graph.main.tensors.get(name)?.bytes ?? 0;
    for (const name of node.outputs) bytes += 4 * TAP_ROWS * (this.#taps.get(name)?.inFeatures ?? 0);
    return bytes;
  }

  /** Values of the graph that the graphs within a node read. */
  #captured(node: OnnxNode, scopes: ReadonlyMap<Message, Scope>): readonly string[] {
    const found: string[] = [];
    const left = graphsIn(node).map((message) => scopes.get(message)!);
    for (let scope = left.pop(); scope; scope = left.pop()) {
      const { main } = this.#graph;
      const names = [...scope.nodes.flatMap(({ inputs }) => inputs), ...scope.outputs];
      for (const name of names) if (name !== '' && this.#graph.homeOf(scope, name) === main) found.push(name);
      left.push(...scope.children);
    }
    return found;
  }
}
