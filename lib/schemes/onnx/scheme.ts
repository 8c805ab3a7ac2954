import type { RowChunk } from '../rows/chunks.js';
import { decodeRows, layerRows, loadRows } from '../rows/read.js';
import type { PlannedLayer, Scheme } from '../scheme.js';
import { encodeNodes } from './encode.js';
import { findNodes, type NodeLayer, partsOf, tracesOfNodes } from './find.js';
import { bytesOf, checkNodes, DEFAULTS, fitNodes, type NodesForm, nodeChunks, specsOf } from './form.js';

/** Weights as codes of nodes that onnxruntime has for them: MatMulNBits, GatherBlockQuantized. */
export const onnxNodes: Scheme<NodesForm, NodeLayer, RowChunk> = {
  name: 'onnx',
  title: 'MatMulNBits of onnxruntime',
  containers: ['onnx'],
  keepsGrids: true,
  embeddings: true,
  refines: true,
  defaults: DEFAULTS,
  tensorsOf: ({ node: { zeros, correction } }) =>
    2 + (zeros ? 1 : 0) + (correction === undefined ? 0 : correction.kind === 'float' ? 1 : 3),

  check: checkNodes,
  fit: fitNodes,
  specs: specsOf,
  constants: () => [],
  biasDtype: () => undefined,
  encodeBias: () => new Uint8Array(),
  chunks: nodeChunks,
  encode: encodeNodes,
  summarize: (form) => ({
    packing: form.table ? 'GatherBlockQuantized' : 'MatMulNBits',
    metaDtype: form.node.dtype,
    bytes: bytesOf({ site: { weight: { name: '' } }, form } as PlannedLayer<NodesForm>),
  }),
  declare: (layers) => ({
    set: Object.fromEntries(layers.map(({ site, form }) => [site.weight.name, form.node])),
    drop: [],
  }),
  notes(layers) {
    const slow = layers.filter(({ form: { node } }) => node.accuracy === 0 && node.bits !== 4);
    if (slow.length === 0) return [];
    return [
      'At accuracy level 0 onnxruntime computes 2 and 8 bits some 30 times as slowly as at level 4 (--accuracy-level).',
    ];
  },

  mark: 'is one of MatMulNBits',
  settings: [],
  traces: tracesOfNodes,
  find: findNodes,
  storedChunks: layerRows,
  decode: (source, layer, chunk, dtype, run) => decodeRows(source, layer, chunk, dtype, run, partsOf),
  load: (layer) => loadRows(layer, partsOf),
};
