import type { DType } from '../../matrix/dtype.js';
import type { LinearSite } from '../container.js';
import { numbersOf } from '../stored-types.js';
import type { Constant, OnnxGraph, Scope, Use } from './graph.js';
import { attributeOf, integerAttribute, nodeTitle, type OnnxNode } from './nodes.js';
import type { OnnxTensor } from './tensors.js';

// Which tensors of a graph are weights: constant matrices that are multiplied by, or looked up in, and by which nodes.

/** A node that computes with a weight. */
export interface WeightUse {
  readonly scope: Scope;
  readonly node: OnnxNode;
  readonly kind: 'MatMul' | 'Gemm' | 'Gather';
}

/** A weight, and all that reads it. */
export interface Weight {
  readonly tensor: OnnxTensor;
  readonly scope: Scope;
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  readonly stored: LinearSite['stored'];
  /** The type that it is computed in. */
  readonly dtype: DType;
  readonly uses: readonly WeightUse[];
  /** Nodes between it and those that compute with it, which only pass it on. */
  readonly links: readonly Use[];
}

/** Numbers of types of TensorProto. */
const DTYPE_OF: Readonly<Record<number, DType>> = { 1: 'float32', 10: 'float16', 16: 'bfloat16' };

/** What a tensor is: a weight, or why it is none. */
export function weightOf(graph: OnnxGraph, scope: Scope, tensor: OnnxTensor): Weight | string {
  const own = numbersOf(tensor.type);
  if (own === undefined || tensor.type.rounded !== undefined) return `${tensor.type.name} values`;
  if (tensor.shape.length !== 2) return 'no matrix';
  const [height, width] = tensor.shape as readonly [number, number];
  if (height * width === 0) return 'no numbers';
  const { ends, links } = graph.endsOf(scope, tensor.name);
  if (ends.length === 0) return 'no node uses it';
  const uses = new Map<OnnxNode, WeightUse>();
  const ways = new Set<LinearSite['stored']>();
  const types = new Set<DType>();
  for (const { scope: at, node, index } of ends) {
    if (node === undefined) return 'an output of the graph';
    const use = useOf(graph, at, node, index);
    if (typeof use === 'string') return use;
    const { kind, constant, turned } = use;
    // Multiplied by from the right it lies [in, out], its transpose [out, in]; a table is as one that is turned.
    ways.add(constant.transposed !== turned ? 'out-in' : 'in-out');
    const dtype = constant.cast === undefined ? own : DTYPE_OF[constant.cast];
    if (dtype === undefined) return 'cast to what is no float';
    types.add(dtype);
    uses.set(node, { scope: at, node, kind });
  }
  if (ways.size > 1) return 'used both as it is and turned';
  if (types.size > 1) return 'used in two types';
  const [[stored], [dtype]] = [[...ways], [...types]] as [[LinearSite['stored']], [DType]];
  if (dtype === 'bfloat16') return 'computed in bfloat16, for which onnxruntime has no such kernel';
  const shape = stored === 'out-in' ? ([height, width] as const) : ([width, height] as const);
  return { tensor, scope, shape, stored, dtype, uses: [...uses.values()], links };
}

interface Found {
  readonly kind: WeightUse['kind'];
  readonly constant: Constant;
  /** Whether the node turns it itself. */
  readonly turned: boolean;
}

/** What a node does with input `index`; or why that cannot be done with codes. */
function useOf(graph: OnnxGraph, scope: Scope, node: OnnxNode, index: number): Found | string {
  const { path } = graph;
  const other = `used by ${node.op} ${node.name === '' ? '' : nodeTitle(node)}`.trimEnd();
  if (node.domain !== '') return other;
  const constant = graph.constantOf(scope, node.inputs[index]!);
  if (constant === undefined) return other;
  // What lacks its other input, or what it gives, is no node that could be written anew.
  const isWhole = node.outputs.length === 1 && node.outputs[0] !== '' && (node.inputs[1 - index] ?? '') !== '';
  if (!isWhole && index < 2) return `${other}, which lacks an input or an output`;
  if (node.op === 'Gather') {
    if (index !== 0) return other;
    if (integerAttribute(node, 'axis', 0, path) !== 0) return `${other}, not by rows`;
    return constant.transposed ? `${other}, turned` : { kind: 'Gather', constant, turned: true };
  }
  if (node.op === 'MatMul')
    return index === 1 ? { kind: 'MatMul', constant, turned: false } : `${other} as its first input`;
  if (node.op !== 'Gemm' || index !== 1) return other;
  const number = (name: string) => attributeOf(node, name, path)?.float ?? 1;
  if (integerAttribute(node, 'transA', 0, path) !== 0) return `${other}, whose input is turned`;
  const biased = (node.inputs[2] ?? '') !== '';
  if (number('alpha') !== 1 || (biased && number('beta') !== 1)) return `${other}, with alpha or beta`;
  return { kind: 'Gemm', constant, turned: integerAttribute(node, 'transB', 0, path) !== 0 };
}

/** The vector of a node that computes `output`, or that is added to it, where it is one of `outs` numbers. */
export interface Bias {
  readonly name: string;
  /** The Add that goes; absent where it is the node's own. */
  readonly add?: OnnxNode;
}

/** The bias that can be folded into a node; undefined where there is none. */
export function biasOf(
  graph: OnnxGraph,
  { shape: [outs], dtype }: Weight,
  { scope, node, kind }: WeightUse,
): Bias | undefined {
  const isVector = (name: string) => {
    const home = graph.homeOf(scope, name);
    const tensor = home?.tensors.get(name);
    return tensor?.type.float === dtype && tensor.shape.length === 1 && tensor.shape[0] === outs;
  };
  if (kind === 'Gemm') {
    const name = node.inputs[2] ?? '';
    return name !== '' && isVector(name) ? { name } : undefined;
  }
  const [output] = node.outputs as readonly [string];
  const [use, more] = graph.usesOf(scope, output);
  if (kind !== 'MatMul' || more || use?.node === undefined || use.scope !== scope) return undefined;
  const { node: add } = use;
  if (add.op !== 'Add' || add.domain !== '' || add.inputs.length !== 2 || scope.outputs.has(output)) return undefined;
  const name = add.inputs[1 - use.index]!;
  return isVector(name) ? { name, add } : undefined;
}
