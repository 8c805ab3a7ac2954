import type { LinearSite, TensorSpec } from '../../containers/container.js';
import {
  blocksOf,
  bytesOfBlock,
  type Correction,
  type NodeForm,
  partNames,
  zeroBytes,
} from '../../containers/onnx/forms.js';
import { storedFloat, storedType } from '../../containers/stored-types.js';
import type { QuantConfig } from '../../matrix/config.js';
import { resolveQuantConfig } from '../../matrix/options.js';
import { overlay } from '../../matrix/overlay.js';
import { HqqError, show } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import { checkRows, type RowChunk, rowChunks } from '../rows/chunks.js';
import { checkRowConfig, type RowForm, type RowRules } from '../rows/form.js';
import type { LayerOptions, PlannedLayer, Stays } from '../scheme.js';

/** How a weight lies in codes of MatMulNBits. Its `shape` is that of the weight; a row's last block may be a part of one. */
export interface NodesForm extends RowForm {
  readonly node: NodeForm;
  /** Whether codes lie as a table that is looked up in, `[out, bytes of a row]`, and not as blocks. */
  readonly table: boolean;
}

export const RULES: RowRules = {
  title: 'MatMulNBits of onnxruntime',
  nbits: [8, 4, 2],
  zeroPoints: ['integer', 'float', 'symmetric'],
  scaleDtypes: ['float32', 'float16'],
  together: 1,
};

/** Sizes of blocks that the operator has. */
const BLOCKS = [16, 32, 64, 128, 256];

/** What is taken where nothing else is asked for. */
export const DEFAULTS: QuantConfig = { solver: 'joint', zeroPoint: 'integer' };

/** Refuses what the operator does not have. @throws {HqqError} `ERR_INVALID_OPTION` */
export function checkNodes(asked: QuantConfig, metaDtype: LayerOptions['metaDtype']): void {
  checkRowConfig(asked, metaDtype, RULES);
  const { groupSize, granularity } = asked;
  if (groupSize === undefined && granularity !== 'channel') return;
  // What is no size at all is refused as everywhere.
  if (BLOCKS.includes(groupSize as number)) return;
  const got = groupSize === undefined ? show(granularity) : show(groupSize);
  const message = `Expected groupSize to be one of ${BLOCKS.join(', ')}, the blocks that ${RULES.title} has, got ${got}`;
  throw new HqqError('ERR_INVALID_OPTION', `${message}.`);
}

/** The form of a weight, or why it stays as it is. */
export function fitNodes(site: LinearSite, options: LayerOptions): NodesForm | Stays {
  const { shape, weight, embedding, doubt, computed = 'float32' } = site;
  const [, ins] = shape;
  const multiplies = embedding !== true || doubt?.linear === true;
  const asked = overlay(DEFAULTS, { ...options.config, scaleDtype: options.config.scaleDtype ?? computed });
  checkNodes(asked, options.metaDtype);
  if (asked.scaleDtype !== computed)
    return { stays: `computed in ${computed}, which its scales must be too, not ${asked.scaleDtype}` };
  const { config, adapted } = zerosOf(asked, embedding === true);
  const resolved = resolveQuantConfig(config);
  const block = resolved.groupSize!;
  if (embedding && multiplies && ins % block !== 0)
    return { stays: `rows of ${ins}, which blocks of ${block} do not divide, as a table that is shared needs` };
  checkRows(plain(weight.name), [1, blocksOf(ins, block) * block], 1);
  const zeros = resolved.zeroPoint === 'integer';
  const correction = resolved.zeroPoint === 'float' ? correctionOf(ins, block) : undefined;
  const node: NodeForm = {
    ...{ bits: resolved.nbits, block, zeros, accuracy: options.accuracyLevel ?? 4, dtype: computed },
    ...(correction ? { correction } : {}),
  };
  return {
    ...{ config: { ...resolved, groupSize: block }, shape, wholeRows: false, node, table: !multiplies },
    tails: true,
    ...(adapted === undefined ? {} : { adapted }),
  };
}

/** Zeros that are asked for, or what takes their place: of 8 bits floats win nothing, and tables have none. */
function zerosOf(config: QuantConfig, embedding: boolean): { readonly config: QuantConfig; readonly adapted?: string } {
  if (config.zeroPoint !== 'float' || !(embedding || config.nbits === 8)) return { config };
  const why = embedding ? 'embeddings have no others' : 'at 8 bits others gain nothing';
  // A solver that has floats alone is left for the one that has both.
  const solver = config.solver === 'hqq' ? 'joint' : (config.solver ?? 'joint');
  return { config: { ...config, solver, zeroPoint: 'integer' }, adapted: `integer zeros: ${why}` };
}

/** How the correction of float zeros lies: in 8 bits, where blocks of these fill so much that they are smaller than floats. */
function correctionOf(ins: number, block: number): Correction {
  const blocks = blocksOf(ins, block);
  if (blocks < 16) return { kind: 'float' };
  return { kind: 'codes', block: blocks >= 64 ? 64 : 2 ** Math.ceil(Math.log2(blocks)) };
}

/** The tensors that a weight becomes: its codes first. */
export function specsOf({ site: { weight }, form }: PlannedLayer<NodesForm>): readonly TensorSpec[] {
  const { node, shape, table } = form;
  const { bits, block, correction, dtype } = node;
  const [outs, ins] = shape;
  const blocks = blocksOf(ins, block);
  const names = partNames(weight.name, bits);
  const [bytes, float] = [storedType('U8'), storedFloat(dtype)];
  const specs: TensorSpec[] = [
    {
      ...{ name: names.codes, type: bytes },
      shape: table ? [outs, rowBytes(form)] : [outs, blocks, bytesOfBlock(block, bits)],
    },
    { name: names.scales, type: float, shape: [outs, blocks] },
  ];
  if (node.zeros) specs.push({ name: names.zeros, type: bytes, shape: [outs, zeroBytes(blocks, bits)] });
  if (correction?.kind === 'float') specs.push({ name: names.correction, type: float, shape: [blocks, outs] });
  if (correction?.kind === 'codes') {
    const parts = blocksOf(blocks, correction.block);
    specs.push(
      { name: names.correctionCodes, type: bytes, shape: [outs, parts, correction.block] },
      { name: names.correctionScales, type: float, shape: [outs, parts] },
      { name: names.correctionZeros, type: bytes, shape: [outs, parts] },
    );
  }
  return specs;
}

/** Bytes of the codes of a row: those of whole blocks, or, of a table, of the row alone. */
export function rowBytes({ shape: [, ins], node: { bits, block }, table }: NodesForm): number {
  return table ? Math.ceil((ins * bits) / 8) : blocksOf(ins, block) * bytesOfBlock(block, bits);
}

/** Bytes of all tensors that a weight becomes. */
export function bytesOf(layer: PlannedLayer<NodesForm>): number {
  return specsOf(layer).reduce(
    (sum, { type, shape }) => sum + shape.reduce((product, size) => product * size, type.blockBytes),
    0,
  );
}

/** Parts of a weight that are quantized one by one. */
export function nodeChunks({ shape }: Pick<NodesForm, 'shape'>): Iterable<RowChunk> {
  return rowChunks(shape, 1);
}
