import type { TensorSource } from '../../container.js';
import type { Piece } from '../../runnable.js';
import { block, whole } from '../encode.js';
import type { OnnxGraph } from '../graph.js';
import { integerAttribute, type OnnxNode } from '../nodes.js';
import type { OnnxTensor } from '../tensors.js';
import { type Field, Message } from '../wire.js';

// A product by a matrix that is larger than a part may be is computed some of its columns at a time.

/** A constant of a product, and which of its sides has its outputs. */
interface Sliced {
  readonly tensor: OnnxTensor;
  readonly axis: number;
}

/** A product that can be computed in pieces. */
export interface SlicedProduct {
  readonly outs: number;
  /** Its matrix and, where it has one, its bias, by their names. */
  readonly tensors: ReadonlyMap<string, Sliced>;
}

/** What of a node is to be sliced; undefined for what is no product by a constant matrix whose numbers lie together. */
export function slicedProduct(graph: OnnxGraph, node: OnnxNode): SlicedProduct | undefined {
  const { main, path } = graph;
  const isGemm = node.op === 'Gemm' && integerAttribute(node, 'transA', 0, path) === 0;
  if (node.domain !== '' || node.outputs.length !== 1 || (node.op !== 'MatMul' && !isGemm)) return undefined;
  const constantOf = (name: string) => {
    const constant = name === '' ? undefined : graph.constantOf(main, name);
    return constant?.scope === main && constant.tensor.key !== undefined && constant.tensor.spelt === undefined
      ? constant
      : undefined;
  };
  const matrix = constantOf(node.inputs[1] ?? '');
  if (matrix === undefined || matrix.tensor.shape.length !== 2) return undefined;
  const isTurned = isGemm && integerAttribute(node, 'transB', 0, path) !== 0;
  const axis = matrix.transposed === isTurned ? 1 : 0;
  const outs = matrix.tensor.shape[axis]!;
  const tensors = new Map([[matrix.tensor.name, { tensor: matrix.tensor, axis }]]);
  const bias = node.inputs[2] ?? '';
  if (bias !== '') {
    const tensor = constantOf(bias)?.tensor;
    if (tensor === undefined || tensor.name !== bias) return undefined;
    const count = tensor.shape.reduce((product, size) => product * size, 1);
    if (count !== 1 && (count !== outs || tensor.shape.at(-1) !== outs)) return undefined;
    if (count !== 1) tensors.set(bias, { tensor, axis: tensor.shape.length - 1 });
  }
  return { outs, tensors };
}

/** The pieces of a product, in their order. `most`: bytes of what one computes with. */
export function piecesOf({ outs, tensors }: SlicedProduct, most: number): readonly Piece[] {
  const bytes = [...tensors.values()].reduce((sum, { tensor }) => sum + tensor.bytes, 0);
  const width = Math.max(1, Math.floor(most / (bytes / outs)));
  return Array.from({ length: Math.ceil(outs / width) }, (_, i) => ({
    from: i * width,
    to: Math.min(outs, (i + 1) * width),
  }));
}

/** A tensor as a piece of the product has it, with its numbers. */
export async function slice(
  source: Pick<TensorSource, 'entries' | 'read'>,
  entry: string,
  { tensor, axis }: Sliced,
  { from, to }: Piece,
): Promise<readonly Field[]> {
  const { shape, bytes } = tensor;
  const rows = shape.slice(0, axis).reduce((product, size) => product * size, 1);
  const each = bytes / rows / shape[axis]!;
  const numbers = new Uint8Array(rows * (to - from) * each);
  const size = (to - from) * each;
  for (let row = 0; row < rows; row++) {
    const at = (row * shape[axis]! + from) * each;
    await source.read(source.entries.get(entry)!, at, numbers.subarray(row * size, (row + 1) * size));
  }
  const kept = tensor.message.fields.filter(({ number }) => number === 2);
  const dims = shape.map((own, i) => whole(1, i === axis ? to - from : own));
  return new Message([...dims, ...kept, block(9, numbers)]).fields;
}
