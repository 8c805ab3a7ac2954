import type { TensorSpec } from '../../containers/container.js';
import { DTYPES } from '../../matrix/dtype.js';
import { formOf } from '../../matrix/fit.js';
import { packedRows } from '../../matrix/format.js';
import { plain, quoteSome } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import { CHUNK_WEIGHTS, checkChunks, chunksOf, type GroupedChunk } from '../chunks.js';
import type { PlannedLayer, Scheme } from '../scheme.js';
import { BYTE_KEYS, BYTE_METAS, byteMetaBytes } from './byte-meta.js';
import { confusedLayers } from './confusion.js';
import { quantizationConfig, skipModules } from './declare.js';
import { dequantizeChunk, layerChunks, loadLayer } from './decode.js';
import { encodeChunk, storedMeta } from './encode.js';
import { holdTensor } from './hold.js';
import { probe } from './probe.js';
import { namesOfCodes, type ReadLayer, readLayers } from './read-layers.js';
import { formatOf, type HqqForm, hasByteMeta, LAYER_KEYS, largeSpecs, MARKS, smallTensors } from './state-dict.js';
import { surveyOf } from './survey.js';

const cutOf = (form: HqqForm) => ({ geometry: form.geometry, axis: form.config.axis, format: formatOf(form) });

/** By layer, which is plain data: a conversion asks for them again and again, for their names, their sizes and their places. */
const known = new WeakMap<PlannedLayer<HqqForm>, readonly TensorSpec[]>();

function specsOf(layer: PlannedLayer<HqqForm>): readonly TensorSpec[] {
  let specs = known.get(layer);
  if (specs) return specs;
  const small = smallTensors(layer).map(({ name, type, shape }) => ({ name, type, shape }));
  specs = [...largeSpecs(layer), ...small];
  known.set(layer, specs);
  return specs;
}

/** Layers as Python's hqq stores them: codes, scales and zeros, and sixteen small tensors that say what they are. */
export const hqq: Scheme<HqqForm, ReadLayer, GroupedChunk> = {
  name: 'hqq',
  title: 'HQQ',
  containers: ['safetensors'],
  tensorsOf: (form) => LAYER_KEYS.length + (hasByteMeta(form) ? BYTE_KEYS.length - BYTE_METAS.length - 1 : 0),
  marks: MARKS,
  takesChosen: true,
  refines: true,
  embeddings: true, // openModel and hqq/runtime read them; of Python's loaders none does, as the notes say

  fit(site, { config, metaDtype }) {
    const fit = formOf(site.shape, config);
    if ('reason' in fit) return fit;
    const bytes = fit.config.metaBits === 8;
    const form: HqqForm = {
      config: fit.config,
      ...(fit.adapted === undefined ? {} : { adapted: fit.adapted }),
      packing: fit.format.packing,
      geometry: fit.geometry,
      // A bias alone is not worth asking the weights for.
      metaDtype: metaDtype === 'float32' || (metaDtype === 'auto' && bytes) ? 'float32' : 'float16',
      settled: metaDtype !== 'auto' || bytes,
    };
    checkChunks(plain(site.weight.name), cutOf(form));
    return form;
  },
  probe,
  specs: specsOf,
  constants: smallTensors,
  biasDtype: ({ metaDtype }) => metaDtype,
  // Smaller ones where scales and zeros of a whole layer or two are held beside them.
  chunks: (form) => chunksOf(cutOf(form), hasByteMeta(form) ? CHUNK_WEIGHTS / 2 : CHUNK_WEIGHTS),
  encode: encodeChunk,
  survey: surveyOf,
  encodeBias: (layer, values, slot) => storedMeta(layer, 'bias', values, slot),
  summarize(form) {
    const { geometry, metaDtype } = form;
    const { rows, cols, groups } = geometry;
    const format = formatOf(form);
    const meta = hasByteMeta(form) ? byteMetaBytes(groups) : 2 * groups * DTYPES[metaDtype].bytes;
    const bytes = packedRows(format, rows) * cols * format.wordBytes + meta;
    return { packing: format.packing, ...(hasByteMeta(form) ? {} : { metaDtype }), bytes };
  },
  declare(layers, stays, moduleOf = (name) => name) {
    const names = layers.map(({ site }) => moduleOf(site.name));
    const skip = stays.map(({ module }) => module);
    const set = { quantization_config: quantizationConfig(layers, skipModules(names, skip)) };
    return { set, drop: [] };
  },
  confused: confusedLayers,
  notes(layers) {
    const notes: string[] = [];
    const namesOf = (chosen: typeof layers) => chosen.map(({ site }) => site.weight.name);
    const turned = namesOf(layers.filter(({ site }) => site.stored === 'in-out'));
    if (turned.length > 0) {
      const what = `${plural(turned.length, 'weight')} stored [in, out] (${quoteSome(turned, 1)})`;
      notes.push(
        `${what} ${turned.length === 1 ? 'is' : 'are'} quantized as [out, in]. hqq reads them and gives them back; loaders of HQQ in ` +
          'Python (transformers, hqq) take nn.Linear only and will not load them.',
      );
    }
    const strange = namesOf(layers.filter(({ site }) => site.doubt));
    if (strange.length > 0) {
      const what = `${quoteSome(strange, 3)} ${strange.length === 1 ? 'is' : 'are'} quantized as you asked`;
      notes.push(
        `${what}. hqq reads and dequantizes ${strange.length === 1 ? 'it' : 'them'}; loaders of HQQ in Python (transformers, hqq, ` +
          'vLLM) take linear layers only and will not load the output.',
      );
    }
    if (layers.some(({ form }) => hasByteMeta(form))) {
      notes.push(
        'Scales and zeros are quantized themselves. hqq reads them; loaders of HQQ in Python (transformers, vLLM) read them from no ' +
          'safetensors file: docs/python.md has the lines that load such layers into its HQQLinear.',
      );
    }
    return notes;
  },

  hold: holdTensor,

  mark: 'is called <module>.W_q',
  settings: ['quantization_config'],
  traces(source) {
    const names = namesOfCodes(source);
    if (names.length === 0) return undefined;
    return `${plural(names.length, 'layer')} ${names.length === 1 ? 'holds' : 'hold'} HQQ codes (${quoteSome(names, 1)})`;
  },
  find: readLayers,
  storedChunks: layerChunks,
  decode: dequantizeChunk,
  load: loadLayer,
};
