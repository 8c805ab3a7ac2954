import { widenBytes } from '../../compute/floats.js';
import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { layerNameOf, type OnnxEnvelope, type OnnxModel } from '../../containers/onnx/envelope.js';
import { blocksOf, bytesOfBlock, partNames, zeroBytes } from '../../containers/onnx/forms.js';
import { integerAttribute } from '../../containers/onnx/nodes.js';
import { type CodeNode, codeNodes } from '../../containers/onnx/restore.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { DTYPES } from '../../matrix/dtype.js';
import { quote } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import { columnsOf, type RowChunk, rowsOf } from '../rows/chunks.js';
import type { RowLayer, RowParts } from '../rows/read.js';
import { describe, isLike, type Refuse, refusalOf } from '../rows/stored.js';
import { transpose } from '../rows/streams.js';

/** A weight in codes of MatMulNBits, or of GatherBlockQuantized. */
export interface NodeLayer extends RowLayer {
  readonly bits: number;
  readonly block: number;
  /** Bytes of the codes of a row. */
  readonly width: number;
  readonly codes: TensorEntry;
  readonly scale: TensorEntry;
  /** Zero points: codes in bytes, or floats. */
  readonly zeros: TensorEntry | undefined;
  /** What float zeros leave. */
  readonly correction:
    | { readonly kind: 'float'; readonly values: TensorEntry; readonly times: number }
    | {
        readonly kind: 'codes';
        readonly block: number;
        readonly codes: TensorEntry;
        readonly scale: TensorEntry;
        readonly zeros: TensorEntry;
        readonly times: number;
      }
    | undefined;
}

const modelsOf = ({ envelope }: Pick<TensorSource, 'envelope'>): readonly OnnxModel[] =>
  (envelope as OnnxEnvelope).models;

/** By what a model is known to hold such layers. */
export function tracesOfNodes(source: Pick<TensorSource, 'envelope'>): string | undefined {
  const count = modelsOf(source).reduce((sum, { graph }) => sum + codeNodes(graph).length, 0);
  return count === 0 ? undefined : `${plural(count, 'node')} of MatMulNBits`;
}

/** Every weight in such codes. */
export async function findNodes(source: TensorSource): Promise<readonly NodeLayer[]> {
  const layers = new Map<string, NodeLayer>();
  for (const model of modelsOf(source)) {
    const nodes = codeNodes(model.graph);
    const weights = new Set(nodes.map(({ weight }) => model.prefix + weight));
    const isTensor = (name: string) => weights.has(name) || source.entries.has(name);
    for (const own of nodes) {
      await yieldIfDue();
      const layer = layerOfNode(source, model, own, isTensor);
      if (layer === undefined) continue;
      const other = layers.get(layer.name);
      const isAlike = (key: 'scale' | 'zeros' | 'bits' | 'block') => other?.[key] === layer[key];
      if (other && !(['scale', 'zeros', 'bits', 'block'] as const).every(isAlike))
        refusal(source, model, own)('has codes that another node reads with other scales');
      // Of a table that is multiplied by, too, products say more: the bias, blocks.
      const [best, rest] = other && !(own.node.op === 'MatMulNBits' && !other.bias) ? [other, layer] : [layer, other];
      const entries = [...new Set([...best.entries, ...(rest?.entries ?? [])])] as unknown as NodeLayer['entries'];
      layers.set(layer.name, { ...best, entries });
    }
  }
  return [...layers.values()];
}

const refusal = (source: TensorSource, { file }: OnnxModel, { node, weight }: CodeNode): Refuse =>
  refusalOf(source.files.find(({ name }) => name === file)?.path ?? file, node.name || weight);

function layerOfNode(
  source: TensorSource,
  model: OnnxModel,
  own: CodeNode,
  isTensor: (name: string) => boolean,
): NodeLayer | undefined {
  const { graph, prefix } = model;
  const { scope, node, stored } = own;
  const { path } = graph;
  const isTable = node.op === 'GatherBlockQuantized';
  const refuse = refusal(source, model, own);
  const at = (index: number): TensorEntry | undefined => {
    const name = node.inputs[index] ?? '';
    if (name === '') return undefined;
    const constant = graph.constantOf(scope, name);
    if (constant?.tensor.key === undefined || constant.transposed)
      return refuse(`has an input ${index} that is no tensor`);
    return source.entries.get(prefix + constant.tensor.key);
  };
  const codes = source.entries.get(prefix + own.codes)!;
  if (codes.type.name !== 'U8') return undefined; // codes of other operators' kinds
  if (!isTable && (node.inputs[4] ?? '') !== '')
    refuse('has an order of its columns (g_idx, input 4), with which weights are not read');
  if (own.shared !== undefined) refuse(`shares ${quote(own.shared)} with nodes of other kinds, for which it must stay`);
  const scale = at(2) ?? refuse('has no scales');
  const zeros = at(3);
  const bits = integerAttribute(node, 'bits', 4, path);
  const block = integerAttribute(node, 'block_size', isTable ? 128 : 0, path);
  if (![2, 4, 8].includes(bits)) return undefined;
  if (!(block >= 16 && block <= 2 ** 24 && Number.isInteger(Math.log2(block)))) refuse(`has blocks of ${block}`);
  const { float } = scale.type;
  const [outs, ins] = isTable
    ? [codes.shape[0]!, (codes.shape.slice(1).reduce((product, size) => product * size, 1) * 8) / bits]
    : [integerAttribute(node, 'N', 0, path), integerAttribute(node, 'K', 0, path)];
  const isSize = (size: number) => Number.isSafeInteger(size) && size > 0;
  if (!isSize(outs) || !isSize(ins) || !Number.isSafeInteger(outs * ins))
    return refuse(`has the shape ${outs} x ${ins}`);
  const blocks = blocksOf(ins, block);
  const width = isTable ? Math.ceil((ins * bits) / 8) : blocks * bytesOfBlock(block, bits);
  const sized = (entry: TensorEntry, count: number, what: string) => {
    if (entry.shape.reduce((product, size) => product * size, 1) !== count)
      refuse(`has ${describe(entry)} as ${what}, where ${count} are needed`);
  };
  sized(codes, outs * width, 'codes');
  if (float === undefined) return refuse(`has ${describe(scale)} as scales`);
  sized(scale, outs * blocks, 'scales');
  if (zeros) sized(zeros, outs * (zeros.type.name === 'U8' ? zeroBytes(blocks, bits) : blocks), 'zero points');
  if (zeros && zeros.type.name !== 'U8' && zeros.type.float === undefined)
    refuse(`has ${describe(zeros)} as zero points`);
  const key = prefix + own.weight;
  const sums = own.sums === undefined ? undefined : source.entries.get(prefix + own.sums);
  const correction = sums && correctionOf(source, prefix + own.base, sums, [outs, blocks], refuse);
  const parts =
    correction === undefined
      ? []
      : correction.kind === 'float'
        ? [correction.values]
        : [correction.codes, correction.scale, correction.zeros];
  const entries: NodeLayer['entries'] = [codes, scale, ...(zeros ? [zeros] : []), ...parts];
  const others = own.tensors
    .flatMap((other) => source.entries.get(prefix + other) ?? [])
    .filter((entry) => !entries.includes(entry));
  const bytes = entries.reduce((sum, { begin, end }) => sum + end - begin, 0);
  const name = layerNameOf(key, isTensor);
  // Groups of a row that its blocks do not divide are smaller, and several of a block alike.
  const groupSize = ins % block === 0 ? block : divisor(ins, block);
  return {
    ...{ scheme: 'onnx', name, bare: name === key, shape: [outs, ins], stored, together: 1 },
    entries: [...entries, ...others],
    bias: isTable ? undefined : at(5),
    storage: {
      ...{
        nbits: bits,
        groupSize,
        axis: 1,
        packing: isTable ? 'GatherBlockQuantized' : 'MatMulNBits',
        metaDtype: float,
      },
      ...(correction || (zeros && zeros.type.name !== 'U8') ? {} : { zeroPoint: zeros ? 'integer' : 'symmetric' }),
      bitsPerWeight: (8 * bytes) / (outs * ins),
    },
    ...{ bits, block, width, codes, scale, zeros, correction },
  };
}

const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));

/** @param sums Scales of what sums inputs, all alike. */
function correctionOf(
  source: TensorSource,
  key: string,
  sums: TensorEntry,
  [outs, blocks]: readonly [number, number],
  refuse: Refuse,
): NodeLayer['correction'] {
  const { entries } = source;
  if (sums.type.float === undefined || sums.end === sums.begin) return refuse('has a correction that is none');
  const first = new Uint8Array(sums.type.blockBytes);
  source.readSync(sums, 0, first);
  const times = new Float32Array(1);
  widenBytes(first, sums.type.float, times);
  const names = partNames(key, 8);
  const values = entries.get(names.correction);
  if (values?.type.float !== undefined && isLike(values, values.type.name, [blocks, outs]))
    return { kind: 'float', values, times: times[0]! };
  const codes = entries.get(names.correctionCodes);
  if (codes === undefined) return undefined;
  const [scale, zeros] = [entries.get(names.correctionScales), entries.get(names.correctionZeros)];
  const block = codes.shape[2] ?? 0;
  const parts = block > 0 ? blocksOf(blocks, block) : 0;
  const fits =
    scale?.type.float !== undefined &&
    isLike(codes, 'U8', [outs, parts, block]) &&
    isLike(scale, scale.type.name, [outs, parts]);
  if (!fits || zeros === undefined || !isLike(zeros, 'U8', [outs, parts]))
    return refuse('has a correction that is none');
  return { kind: 'codes', block, codes, scale: scale!, zeros, times: times[0]! };
}

/** What is read of some rows of a layer. */
export function partsOf(layer: NodeLayer, chunk: RowChunk): RowParts {
  const { bits, block, width, codes, scale, zeros, correction, shape, storage } = layer;
  const [outs, ins] = shape;
  const { rows, first } = chunk;
  const blocks = blocksOf(ins, block);
  const floatBytes = (entry: TensorEntry) => DTYPES[entry.type.float!].bytes;
  const zeroWidth = zeros && zeros.type.name === 'U8' ? zeroBytes(blocks, bits) : blocks;
  const parts = correction?.kind === 'codes' ? blocksOf(blocks, correction.block) : 0;
  return {
    reads: [
      { entry: codes, ranges: rowsOf(chunk, width), size: 1 },
      { entry: scale, ranges: rowsOf(chunk, blocks), size: floatBytes(scale) },
      ...(zeros ? [{ entry: zeros, ranges: rowsOf(chunk, zeroWidth), size: zeros.type.blockBytes }] : []),
      ...(correction?.kind === 'float'
        ? [
            {
              entry: correction.values,
              ranges: columnsOf(blocks, outs, first, rows),
              size: floatBytes(correction.values),
            },
          ]
        : []),
      ...(correction?.kind === 'codes'
        ? [
            { entry: correction.codes, ranges: rowsOf(chunk, parts * correction.block), size: 1 },
            { entry: correction.scale, ranges: rowsOf(chunk, parts), size: floatBytes(correction.scale) },
            { entry: correction.zeros, ranges: rowsOf(chunk, parts), size: 1 },
          ]
        : []),
    ],
    unpack(read, into) {
      unpackCodes(read[0]!, rows, ins, bits, width, into.codes);
      const scales = new Float32Array(rows * blocks);
      widenBytes(read[1]!, scale.type.float!, scales);
      const own = new Float32Array(rows * blocks).fill(2 ** (bits - 1));
      if (zeros?.type.float !== undefined) widenBytes(read[2]!, zeros.type.float, own);
      else if (zeros) own.set(unpackCodes(read[2]!, rows, blocks, bits, zeroWidth, new Uint8Array(rows * blocks)));
      if (correction) {
        const rest = read.slice(zeros ? 3 : 2);
        const values =
          correction.kind === 'float'
            ? turnedFloats(rest[0]!, correction.values, rows, blocks)
            : decoded(rest, correction, rows, blocks, parts);
        for (let i = 0; i < own.length; i++)
          if (scales[i] !== 0) own[i]! -= (correction.times * values[i]!) / scales[i]!;
      }
      const each = ins / storage.groupSize;
      for (let row = 0; row < rows; row++) {
        for (let group = 0; group < each; group++) {
          const at = row * blocks + Math.floor((group * storage.groupSize) / block);
          into.scale[row * each + group] = scales[at]!;
          into.zero[row * each + group] = own[at]!;
        }
      }
    },
  };
}

function turnedFloats(bytes: Uint8Array, { type }: TensorEntry, rows: number, blocks: number): Float32Array {
  const values = new Float32Array(rows * blocks);
  widenBytes(bytes, type.float!, values);
  return transpose(values, blocks, rows, new Float32Array(rows * blocks));
}

function decoded(
  [codes, scaleBytes, zeros]: readonly Uint8Array[],
  { block, scale }: Extract<NodeLayer['correction'], { kind: 'codes' }>,
  rows: number,
  blocks: number,
  parts: number,
): Float32Array {
  const scales = new Float32Array(rows * parts);
  widenBytes(scaleBytes!, scale.type.float!, scales);
  const values = new Float32Array(rows * blocks);
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < blocks; i++) {
      const part = row * parts + Math.floor(i / block);
      values[row * blocks + i] = (codes![row * parts * block + i]! - zeros![part]!) * scales[part]!;
    }
  }
  return values;
}

/** Codes of rows, of whose bytes each has `width`, low bits first. */
function unpackCodes(
  bytes: Uint8Array,
  rows: number,
  cols: number,
  bits: number,
  width: number,
  codes: Uint8Array,
): Uint8Array {
  const [each, mask] = [8 / bits, 2 ** bits - 1];
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < cols; i++) {
      const byte = bytes[row * width + Math.floor(i / each)]!;
      codes[row * cols + i] = (byte >>> ((i % each) * bits)) & mask;
    }
  }
  return codes;
}
