import type { TensorSpec } from '../../containers/container.js';
import { storedFloat, storedType } from '../../containers/stored-types.js';
import { highestCode } from '../../matrix/config.js';
import { DTYPES } from '../../matrix/dtype.js';
import { HqqError } from '../../messages/errors.js';
import { quoteSome } from '../../messages/text.js';
import { confusedLayers } from '../hqq/confusion.js';
import type { RowChunk } from '../rows/chunks.js';
import { columnChunks, columnPiece, scalePiece, TOGETHER } from '../rows/columns.js';
import { groupsOfRow, type RowForm, type RowRules, refusesExperts } from '../rows/form.js';
import { rowScheme } from '../rows/scheme.js';
import { solveRows } from '../rows/solve.js';
import { zeroCodes } from '../rows/streams.js';
import { packedWords } from '../rows/words.js';
import type { Encoded, PlannedLayer, Scheme, StayingLayer, WorkRun } from '../scheme.js';
import { type AwqLayer, findAwq, namesOfAwq, partsOf } from './find.js';
import { FIELDS, GEMM } from './order.js';

type Layer = PlannedLayer<RowForm>;

const RULES: RowRules = {
  title: 'AWQ',
  nbits: [4],
  zeroPoints: ['integer', 'symmetric'],
  scaleDtypes: ['float16'],
  together: TOGETHER,
  unfit: ([outs, ins]) => (outs % FIELDS === 0 ? undefined : `${outs} x ${ins}, with rows that are no multiple of 8`),
  refuses: refusesExperts,
  unloaded({ name, head }) {
    return head === undefined && name !== 'lm_head' ? undefined : 'output head: loaders of AWQ take it as it is';
  },
  adapts: () => false,
};

function specsOf({ site: { name }, form }: Layer): readonly TensorSpec[] {
  const { shape, config } = form;
  const [outs, ins] = shape;
  const groups = groupsOfRow(form);
  const words = storedType('I32');
  return [
    { name: `${name}.qweight`, type: words, shape: [ins, outs / FIELDS] },
    { name: `${name}.qzeros`, type: words, shape: [groups, outs / FIELDS] },
    { name: `${name}.scales`, type: storedFloat(config.scaleDtype), shape: [groups, outs] },
  ];
}

async function encode(layer: Layer, chunk: RowChunk, weights: Uint8Array, run: WorkRun): Promise<Encoded> {
  const { site, form } = layer;
  const { codes, scale, zero, sums } = await solveRows(layer, chunk, weights, run);
  if (sums.badIndex >= 0) return { pieces: [], sums };
  const [outs, ins] = form.shape;
  const { slot } = run;
  const { rows } = chunk;
  const groups = groupsOfRow(form);
  const packing = { rows, bits: form.config.nbits, order: GEMM, turned: true };
  const packed = packedWords('packed', { ...packing, codes, cols: ins }, run);
  const bytes = zeroCodes(zero, highestCode(form.config.nbits), slot.take('zero codes', Uint8Array, zero.length));
  const zeros = packedWords('zero words', { ...packing, codes: bytes, cols: groups }, run);
  return {
    pieces: [
      columnPiece(`${site.name}.qweight`, chunk, [ins, outs / FIELDS], FIELDS, packed, 4),
      columnPiece(`${site.name}.qzeros`, chunk, [groups, outs / FIELDS], FIELDS, zeros, 4),
      scalePiece(layer, chunk, scale, run),
    ],
    sums,
  };
}

/** The `quantization_config` of such layers. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for groups of several sizes. */
function configurationOf(layers: readonly Layer[], stays: readonly StayingLayer[]): unknown {
  const { config, wholeRows } = layers[0]!.form;
  const other = layers.find(
    ({ form }) => form.wholeRows !== wholeRows || (!wholeRows && form.config.groupSize !== config.groupSize),
  );
  if (other) {
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected all layers of AWQ to have groups of one size, but ${quoteSome([other.site.weight.name])} differs from ` +
        `${quoteSome([layers[0]!.site.weight.name])}. Exclude it, or write --to compressed-tensors, which may mix them.`,
    );
  }
  const dense = stays.flatMap(({ layer, module }) => (layer === module ? [layer] : [layer, module]));
  const names = [...new Set(dense)].filter((name) => name !== 'lm_head');
  return {
    ...{
      quant_method: 'awq',
      bits: 4,
      group_size: wholeRows ? -1 : config.groupSize,
      zero_point: true,
      version: 'gemm',
    },
    modules_to_not_convert: names.length === 0 ? null : names,
  };
}

/** Layers as AutoAWQ stores them (`gemm`): what vLLM, SGLang and, with gptqmodel, transformers 5 load. */
export const awq: Scheme<RowForm, AwqLayer, RowChunk> = {
  name: 'awq',
  ...rowScheme(RULES, namesOfAwq, partsOf),
  defaults: { solver: 'joint', zeroPoint: 'integer' },
  tensorsOf: () => 3,
  unloadedExperts: 'refused',

  specs: specsOf,
  chunks: ({ shape }) => columnChunks(shape),
  encode,
  summarize(form) {
    const { shape, config } = form;
    const [outs, ins] = shape;
    const groups = groupsOfRow(form);
    const bytes = (outs * ins) / 2 + (groups * outs) / 2 + groups * outs * DTYPES[config.scaleDtype].bytes;
    return { packing: 'awq-gemm', metaDtype: config.scaleDtype, bytes };
  },
  declare: (layers, stays) => ({ set: { quantization_config: configurationOf(layers, stays) }, drop: [] }),
  notes: () => [],
  // What is not to be converted is looked for in the names of layers, as text.
  confused: (layers, stays) => confusedLayers(layers, stays, []),

  mark: 'is called <module>.qweight, of AWQ',
  find: findAwq,
};
