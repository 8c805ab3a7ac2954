import { bytesOf, narrowBytes } from '../../compute/floats.js';
import type { TensorSpec } from '../../containers/container.js';
import { storedFloat, storedType } from '../../containers/stored-types.js';
import { DTYPES, type DType } from '../../matrix/dtype.js';
import { type RowChunk, rowChunks, rowsOf } from '../rows/chunks.js';
import { expertNotes, fitRows, groupsOfRow, isExpert, type RowForm, type RowRules } from '../rows/form.js';
import { rowScheme } from '../rows/scheme.js';
import { solveRows, storedScales } from '../rows/solve.js';
import type { Encoded, LayerOptions, Piece, PlannedLayer, Scheme, WorkRun } from '../scheme.js';
import { configurationOf, metadataOf } from './declare.js';
import { findUnpacked, namesOfUnpacked, partsOf, type UnpackedLayer } from './find.js';

/** How such a layer is stored: its zeros as bytes where they are codes, else as its scales are. */
type Layer = PlannedLayer<RowForm>;

const RULES: RowRules = {
  title: 'torchao',
  nbits: [8, 6, 5, 4, 3, 2, 1],
  zeroPoints: ['float', 'integer', 'symmetric'],
  scaleDtypes: ['float32', 'float16', 'bfloat16'],
  together: 1,
  unloaded: ({ name }) => (isExpert(name) ? 'expert: transformers loads no experts of torchao' : undefined),
};

const hasFloatZeros = ({ config }: RowForm) => config.zeroPoint === 'float';
const middleOf = ({ config }: RowForm) => 2 ** (config.nbits - 1);

function specsOf({ site: { name }, form }: Layer): readonly TensorSpec[] {
  const { shape, config } = form;
  const groups = groupsOfRow(form);
  const scales = storedFloat(config.scaleDtype);
  return [
    { name: `${name}._weight_qdata`, type: storedType('I8'), shape },
    { name: `${name}._weight_scale`, type: scales, shape: [shape[0], groups] },
    {
      name: `${name}._weight_zero_point`,
      type: hasFloatZeros(form) ? scales : storedType('I8'),
      shape: [shape[0], groups],
    },
  ];
}

async function encode(layer: Layer, chunk: RowChunk, weights: Uint8Array, run: WorkRun): Promise<Encoded> {
  const { site, form } = layer;
  const { scaleDtype } = form.config;
  const { codes, scale, zero, sums } = await solveRows(layer, chunk, weights, run);
  if (sums.badIndex >= 0) return { pieces: [], sums };
  const middle = middleOf(form);
  const groups = groupsOfRow(form);
  const signed = run.slot.take('signed codes', Int8Array, codes.length);
  for (let i = 0; i < codes.length; i++) signed[i] = codes[i]! - middle;
  const { bytes: size } = DTYPES[scaleDtype];
  const piece = (tensor: string, elementBytes: number, cols: number, bytes: Uint8Array): Piece => ({
    ...{ tensor: `${site.name}.${tensor}`, ranges: rowsOf(chunk, cols), elementBytes, bytes },
  });
  return {
    pieces: [
      piece('_weight_qdata', 1, form.shape[1], bytesOf(signed)),
      piece('_weight_scale', size, groups, storedScales(form, scale, run)),
      piece('_weight_zero_point', hasFloatZeros(form) ? size : 1, groups, storedZeros(form, zero, run)),
    ],
    sums,
  };
}

/** Zeros as they are stored: less the middle code, as codes are. */
function storedZeros(form: RowForm, zero: Float32Array, { slot }: WorkRun): Uint8Array {
  const middle = middleOf(form);
  if (!hasFloatZeros(form))
    return bytesOf(slot.take('signed zeros', Int8Array, zero.length).map((_, i) => zero[i]! - middle));
  const shifted = slot.take('shifted zeros', Float32Array, zero.length);
  for (let i = 0; i < zero.length; i++) shifted[i] = zero[i]! - middle;
  if (form.config.scaleDtype === 'float32') return bytesOf(shifted);
  const bytes = slot.take('stored zeros', Uint8Array, 2 * zero.length);
  narrowBytes(shifted, form.config.scaleDtype, bytes);
  return bytes;
}

/** Layers as torchao stores its `IntxUnpackedToInt8Tensor`: a code a byte, with float zeros, which transformers 5 loads exactly. */
export const torchao: Scheme<RowForm, UnpackedLayer, RowChunk> = {
  name: 'torchao',
  ...rowScheme(RULES, namesOfUnpacked, partsOf),
  defaults: { solver: 'joint' },
  tensorsOf: () => 3,
  unloadedExperts: 'stay',

  // Scales have the type of the model: torchao computes in it, and says so of each tensor.
  fit: (site, options) =>
    fitRows(site, { ...options, config: { ...options.config, scaleDtype: typeOf(options) } }, RULES),
  specs: specsOf,
  zeroFrom: middleOf,
  chunks: ({ shape }) => rowChunks(shape, 1),
  encode,
  summarize(form) {
    const { shape, config } = form;
    const scale = DTYPES[config.scaleDtype].bytes;
    const groups = shape[0] * groupsOfRow(form);
    const bytes = shape[0] * shape[1] + groups * (scale + (hasFloatZeros(form) ? scale : 1));
    return { packing: 'int8', metaDtype: config.scaleDtype, bytes };
  },
  declare: (layers) => ({ set: { quantization_config: configurationOf(layers) }, drop: [] }),
  metadata: metadataOf,
  isMetadata: (name, text) => name === 'tensor_names' || /^\{\s{0,8}"_type"/.test(text),
  notes(layers, stays) {
    const experts = expertNotes(RULES.title, stays);
    if (!layers.some(({ form }) => hasFloatZeros(form)))
      return [...experts, 'vLLM loads this with --safetensors-load-strategy torchao.'];
    return [
      ...experts,
      'Zeros are floating-point numbers, which transformers 5 reads as they are. vLLM cuts them off without a message: for it, use zeroPoint (--zero-point) integer.',
    ];
  },

  mark: 'is called <module>._weight_qdata',
  find: findUnpacked,
};

function typeOf({ config, metaDtype, modelDtype }: LayerOptions): DType {
  return config.scaleDtype ?? (metaDtype === 'auto' ? modelDtype : metaDtype);
}
