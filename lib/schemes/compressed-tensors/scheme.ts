import type { TensorSpec } from '../../containers/container.js';
import { storedFloat, storedType } from '../../containers/stored-types.js';
import { highestCode } from '../../matrix/config.js';
import { DTYPES } from '../../matrix/dtype.js';
import { type RowChunk, rowChunks, rowsOf } from '../rows/chunks.js';
import { groupsOfRow, type RowForm, type RowRules } from '../rows/form.js';
import { rowScheme } from '../rows/scheme.js';
import { solveRows, storedScales } from '../rows/solve.js';
import { transpose, wordsOf, zeroCodes } from '../rows/streams.js';
import { packedWords } from '../rows/words.js';
import type { Encoded, Piece, PlannedLayer, Scheme, WholeTensor, WorkRun } from '../scheme.js';
import { integers } from '../small.js';
import { configurationOf, notesOf, unloadedBeside } from './declare.js';
import { findPacked, namesOfPacked, type PackedLayer, partsOf } from './find.js';

/** Rows whose zeros fill whole words, whatever the bits. */
const TOGETHER = 32;

const RULES: RowRules = {
  title: 'compressed-tensors',
  nbits: [8, 6, 5, 4, 3, 2],
  zeroPoints: ['symmetric', 'integer'],
  scaleDtypes: ['float16', 'bfloat16', 'float32'],
  together: TOGETHER,
  // With zeros of their own the library decodes all layers as those of one group of its configuration.
  adapts: ({ zeroPoint }) => zeroPoint === 'symmetric',
};

type Layer = PlannedLayer<RowForm>;

const hasZeros = ({ config }: RowForm) => config.zeroPoint !== 'symmetric';

function specsOf({ site: { name }, form }: Layer): readonly TensorSpec[] {
  const { shape, config } = form;
  const [outs, ins] = shape;
  const groups = groupsOfRow(form);
  const words = storedType('I32');
  return [
    { name: `${name}.weight_packed`, type: words, shape: [outs, wordsOf(ins, config.nbits)] },
    { name: `${name}.weight_scale`, type: storedFloat(config.scaleDtype), shape: [outs, groups] },
    ...(hasZeros(form)
      ? [{ name: `${name}.weight_zero_point`, type: words, shape: [wordsOf(outs, config.nbits), groups] }]
      : []),
    { name: `${name}.weight_shape`, type: storedType('I64'), shape: [2] },
  ];
}

const shapeOf = ({ site: { name }, form: { shape } }: Layer): readonly WholeTensor[] => [
  { name: `${name}.weight_shape`, ...integers(shape) },
];

async function encode(layer: Layer, chunk: RowChunk, weights: Uint8Array, run: WorkRun): Promise<Encoded> {
  const { site, form } = layer;
  const solved = await solveRows(layer, chunk, weights, run);
  const { codes, scale, zero, sums } = solved;
  if (sums.badIndex >= 0) return { pieces: [], sums };
  const { nbits, scaleDtype } = form.config;
  const { rows } = chunk;
  const ins = form.shape[1];
  const groups = groupsOfRow(form);
  const width = wordsOf(ins, nbits);
  const packed = packedWords('packed', { codes, rows, cols: ins, bits: nbits, turned: false }, run);
  const piece = (tensor: string, elementBytes: number, cols: number, bytes: Piece['bytes']): Piece => ({
    ...{ tensor: `${site.name}.${tensor}`, ranges: rowsOf(chunk, cols), elementBytes, bytes },
  });
  const pieces = [
    piece('weight_packed', 4, width, packed),
    piece('weight_scale', DTYPES[scaleDtype].bytes, groups, storedScales(form, scale, run)),
  ];
  if (hasZeros(form)) pieces.push(zeroPiece(layer, chunk, zero, run));
  return { pieces, sums };
}

/** Zeros of a chunk: a bit stream down each column, of which a chunk has whole words. */
function zeroPiece({ site, form }: Layer, { first, rows }: RowChunk, zero: Float32Array, run: WorkRun): Piece {
  const { slot } = run;
  const { nbits } = form.config;
  const groups = groupsOfRow(form);
  const bytes = zeroCodes(zero, highestCode(nbits), slot.take('zero codes', Uint8Array, zero.length));
  const turned = transpose(bytes, rows, groups, slot.take('turned zeros', Uint8Array, zero.length));
  const height = wordsOf(rows, nbits);
  return {
    tensor: `${site.name}.weight_zero_point`,
    ranges: [{ at: ((first * nbits) / 32) * groups, count: height * groups }],
    ...{
      elementBytes: 4,
      bytes: packedWords('zero words', { codes: turned, rows: groups, cols: rows, bits: nbits, turned: true }, run),
    },
  };
}

/** Layers as the compressed-tensors library stores them (`pack-quantized`): what transformers 5, vLLM and SGLang load. */
export const compressedTensors: Scheme<RowForm, PackedLayer, RowChunk> = {
  name: 'compressed-tensors',
  ...rowScheme(RULES, namesOfPacked, partsOf),
  experts: ({ layers }) => layers !== undefined,
  defaults: { solver: 'joint', zeroPoint: 'symmetric' },
  tensorsOf: (form) => (hasZeros(form) ? 4 : 3),

  specs: specsOf,
  constants: shapeOf,
  chunks: ({ shape }) => rowChunks(shape, TOGETHER),
  encode,
  summarize(form) {
    const { shape, config } = form;
    const [outs, ins] = shape;
    const groups = groupsOfRow(form);
    const zeros = hasZeros(form) ? 4 * wordsOf(outs, config.nbits) * groups : 0;
    const scales = outs * groups * DTYPES[config.scaleDtype].bytes;
    const bytes = 4 * outs * wordsOf(ins, config.nbits) + scales + zeros;
    return { packing: 'pack-quantized', metaDtype: config.scaleDtype, bytes };
  },
  declare: (layers, stays, moduleOf) => ({
    set: { quantization_config: configurationOf(layers, stays, moduleOf) },
    drop: [],
  }),
  unloaded: unloadedBeside,
  notes: notesOf,

  mark: 'is called <module>.weight_packed',
  settings: ['quantization_config', 'compression_config'],
  find: findPacked,
};
