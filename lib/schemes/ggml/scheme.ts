import { provide } from '../../backend/js/backend.js';
import { decodeBlocks, splitBlocks } from '../../backend/js/blocks/decode.js';
import { encodeBlocks } from '../../backend/js/blocks/encode.js';
import { plural } from '../../messages/units.js';
import type { Scheme } from '../scheme.js';
import { encodeRows } from './encode.js';
import { type BlockForm, formOf, type RowChunk, rowChunks, specOf, typeNamed } from './form.js';
import { type BlockLayer, decodeRows, findBlocks, loadBlocks, loadNumbers } from './read.js';
import { fileTypeOf, TYPE_NAMES } from './recipes.js';
import { blockTuning } from './tuned.js';

provide({ encodeBlocks, decodeBlocks, splitBlocks });

/** ggml's blocks, as GGUF files have them. */
export const ggml: Scheme<BlockForm, BlockLayer, RowChunk> = {
  name: 'gguf',
  title: "ggml's blocks",
  containers: ['gguf'],
  types: TYPE_NAMES,
  tensorsOf: () => 1,
  keepsName: true,

  fit: formOf,
  specs: ({ site, form }) => [specOf(site, form)],
  constants: () => [],
  biasDtype: () => undefined,
  encodeBias: () => new Uint8Array(),
  chunks: ({ shape }) => rowChunks(shape),
  encode: encodeRows,
  takesChosen: true,
  blockTuning,
  summarize({ type, shape: [rows, cols] }) {
    const { weights, bytes } = typeNamed(type);
    return { packing: type, bytes: ((rows * cols) / weights) * bytes };
  },
  declare: (layers) => ({
    set: { 'general.file_type': fileTypeOf(layers[0]!.form.asked), 'general.quantization_version': 2 },
    drop: [],
  }),
  notes: () => [],

  mark: 'has a quantized type of ggml',
  settings: ['general.quantization_version'],
  traces(source) {
    const layers = findBlocks(source);
    if (layers.length === 0) return undefined;
    const types = [...new Set(layers.map(({ type }) => type.name))].join(', ');
    return `${plural(layers.length, 'layer')} in ggml's blocks (${types})`;
  },
  find: async (source) => findBlocks(source),
  storedChunks: ({ shape }) => rowChunks(shape),
  decode: decodeRows,
  load: loadBlocks,
  loadNumbers,
};
