import type { Scheme } from '../scheme.js';
import type { RowChunk } from './chunks.js';
import { checkRowConfig, fitRows, type RowForm, type RowRules } from './form.js';
import { decodeRows, layerRows, loadRows, type PartsOf, type RowLayer } from './read.js';
import { tellTraces } from './stored.js';

/** What is the same of every scheme whose layers are rows of codes with scales and zeros in tensors of their own. */
export function rowScheme<Layer extends RowLayer>(
  rules: RowRules,
  namesOf: (source: Parameters<Scheme['traces']>[0]) => readonly string[],
  partsOf: PartsOf<Layer>,
) {
  return {
    title: rules.title,
    containers: ['safetensors'],
    takesChosen: true,
    keepsGrids: true,
    check: (asked, metaDtype) => checkRowConfig(asked, metaDtype, rules),
    fit: (site, options) => fitRows(site, options, rules),
    constants: () => [],
    biasDtype: () => undefined,
    encodeBias: () => new Uint8Array(),
    settings: ['quantization_config'],
    traces: (source) => tellTraces(rules.title, namesOf(source)),
    storedChunks: layerRows,
    decode: (source, layer, chunk, dtype, run) => decodeRows(source, layer, chunk, dtype, run, partsOf),
    load: (layer) => loadRows(layer, partsOf),
  } satisfies Partial<Scheme<RowForm, Layer, RowChunk>>;
}
