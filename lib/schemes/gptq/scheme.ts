import { bytesOf } from '../../compute/floats.js';
import type { TensorSpec } from '../../containers/container.js';
import { storedFloat, storedType } from '../../containers/stored-types.js';
import { highestCode } from '../../matrix/config.js';
import { DTYPES } from '../../matrix/dtype.js';
import type { RowChunk } from '../rows/chunks.js';
import { columnChunks, columnPiece, scalePiece, TOGETHER } from '../rows/columns.js';
import { groupsOfRow, type RowForm, type RowRules, refusesExperts } from '../rows/form.js';
import { rowScheme } from '../rows/scheme.js';
import { solveRows } from '../rows/solve.js';
import { transpose, wordsOf, zeroCodes } from '../rows/streams.js';
import { packedWords } from '../rows/words.js';
import type { Encoded, PlannedLayer, Scheme, WholeTensor, WorkRun } from '../scheme.js';
import { configurationOf, isInBlock } from './declare.js';
import { findGptq, type GptqLayer, namesOfGptq, partsOf } from './find.js';

type Layer = PlannedLayer<RowForm>;

/** Features that fill whole words. */
const unitOf = (bits: number): number => (32 % bits === 0 ? 32 / bits : 32);

const RULES: RowRules = {
  title: 'GPTQ',
  nbits: [8, 4, 3, 2],
  zeroPoints: ['symmetric', 'integer'],
  scaleDtypes: ['float16'],
  together: TOGETHER,
  unfit([outs, ins], { nbits }) {
    const unit = unitOf(nbits);
    return outs % unit === 0 && ins % unit === 0
      ? undefined
      : `${outs} x ${ins} is no multiple of ${unit} on both sides`;
  },
  refuses: refusesExperts,
  unloaded({ name }) {
    return isInBlock(name) ? undefined : 'outside of the blocks that are repeated, where GPTQ has no layers';
  },
  adapts: () => false,
};

function specsOf({ site: { name }, form }: Layer): readonly TensorSpec[] {
  const { shape, config } = form;
  const [outs, ins] = shape;
  const groups = groupsOfRow(form);
  const words = storedType('I32');
  return [
    { name: `${name}.qweight`, type: words, shape: [wordsOf(ins, config.nbits), outs] },
    { name: `${name}.qzeros`, type: words, shape: [groups, wordsOf(outs, config.nbits)] },
    { name: `${name}.scales`, type: storedFloat(config.scaleDtype), shape: [groups, outs] },
    { name: `${name}.g_idx`, type: words, shape: [ins] },
  ];
}

function groupIndex({ site: { name }, form: { shape, config } }: Layer): readonly WholeTensor[] {
  const groupOf = Int32Array.from({ length: shape[1] }, (_, feature) => Math.floor(feature / config.groupSize));
  return [{ name: `${name}.g_idx`, type: storedType('I32'), shape: [shape[1]], bytes: bytesOf(groupOf) }];
}

async function encode(layer: Layer, chunk: RowChunk, weights: Uint8Array, run: WorkRun): Promise<Encoded> {
  const { site, form } = layer;
  const { codes, scale, zero, sums } = await solveRows(layer, chunk, weights, run);
  if (sums.badIndex >= 0) return { pieces: [], sums };
  const { nbits, zeroPoint } = form.config;
  const [outs, ins] = form.shape;
  const { slot } = run;
  const { rows } = chunk;
  const groups = groupsOfRow(form);
  const height = wordsOf(ins, nbits);
  const packed = packedWords('packed', { codes, rows, cols: ins, bits: nbits, turned: true }, run);
  const bytes = zeroCodes(zero, highestCode(nbits), slot.take('zero codes', Uint8Array, zero.length));
  // The first version of the format stores one less: the middle code has room for that, 0 would have none.
  if (zeroPoint === 'symmetric') for (let i = 0; i < bytes.length; i++) bytes[i]!--;
  const turned = transpose(bytes, rows, groups, slot.take('turned zeros', Uint8Array, zero.length));
  const zeros = packedWords('zero words', { codes: turned, rows: groups, cols: rows, bits: nbits, turned: false }, run);
  return {
    pieces: [
      columnPiece(`${site.name}.qweight`, chunk, [height, outs], 1, packed, 4),
      columnPiece(`${site.name}.qzeros`, chunk, [groups, wordsOf(outs, nbits)], 32 / nbits, zeros, 4),
      scalePiece(layer, chunk, scale, run),
    ],
    sums,
  };
}

/** Layers as AutoGPTQ and gptqmodel store them: symmetric ones as `gptq`, which engines read, others as `gptq_v2`. */
export const gptq: Scheme<RowForm, GptqLayer, RowChunk> = {
  name: 'gptq',
  ...rowScheme(RULES, namesOfGptq, partsOf),
  defaults: { solver: 'joint', zeroPoint: 'symmetric' },
  tensorsOf: () => 4,
  unloadedExperts: 'refused',

  specs: specsOf,
  constants: groupIndex,
  chunks: ({ shape }) => columnChunks(shape),
  encode,
  summarize(form) {
    const { shape, config } = form;
    const [outs, ins] = shape;
    const groups = groupsOfRow(form);
    const scales = groups * outs * DTYPES[config.scaleDtype].bytes;
    const bytes = 4 * wordsOf(ins, config.nbits) * outs + 4 * groups * wordsOf(outs, config.nbits) + scales + 4 * ins;
    return { packing: 'gptq', metaDtype: config.scaleDtype, bytes };
  },
  declare: (layers, stays) => ({ set: { quantization_config: configurationOf(layers, stays) }, drop: [] }),
  notes(layers) {
    const { zeroPoint, nbits } = layers[0]!.form.config;
    if (zeroPoint === 'symmetric' && (nbits === 4 || nbits === 8)) return [];
    return [
      'transformers (with gptqmodel) loads this. vLLM and SGLang take GPTQ with symmetric zeros and 4 or 8 bits alone; for others there is --to compressed-tensors.',
    ];
  },

  mark: 'is called <module>.qweight, of GPTQ',
  find: findGptq,
};
