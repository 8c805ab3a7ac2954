import { show } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { Obstacle, TensorEntry } from '../container.js';
import { numbersOf } from '../stored-types.js';
import { adapterTensor, isAdapterFile, mergeAdvice, UNMERGED_ADVICE, unmergedTensor } from './adapter.js';
import { foreignLayers, tellForeign } from './foreign.js';

interface Around {
  /** Of the model, as it was opened. */
  readonly path: string;
  /** `__metadata__` of each file that holds tensors, by its name. */
  readonly metadata: ReadonlyMap<string, ReadonlyMap<string, string>>;
  readonly config: Readonly<Record<string, unknown>> | undefined;
}

/** Why a file or a folder is not one to be quantized: what its tensors show counts, then what config.json says. */
export function obstacleOf(entries: ReadonlyMap<string, TensorEntry>, around: Around): Obstacle | undefined {
  const { path, metadata, config } = around;
  const found = foreignLayers(entries, metadata);
  if (found.length > 0) return { ...quantized(tellForeign(found, metadata.size)), seen: true };
  for (const [entry, declared] of declarations(config)) {
    const method = declared.quant_method ?? 'unknown';
    const evidence = `its config.json has a ${plain(entry)} of method ${plain(show(method))}`;
    return holdsFloats(entries) ? kept(evidence, plain(entry)) : quantized(evidence);
  }
  return adapterOf(entries, path, [...metadata.keys()]);
}

type Members = Readonly<Record<string, unknown>>;

const membersOf = (value: unknown): Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Members) : {};

/** Where a configuration, or one of a part of the model, says how it is quantized: `text_config.quantization_config`. */
function* declarations(config: Members | undefined): Generator<readonly [entry: string, declared: Members]> {
  const parts = Object.entries(config ?? {}).filter(([name]) => name.endsWith('_config'));
  for (const [part, members] of [['', config ?? {}] as const, ...parts]) {
    for (const name of ['quantization_config', 'compression_config']) {
      const declared = membersOf(members)[name];
      if (typeof declared !== 'object' || declared === null) continue;
      yield [part === '' ? name : `${part}.${name}`, membersOf(declared)];
    }
  }
}

/** Whether no tensor may be packed weights: numbers, and the counters and masks that float models have beside them. */
function holdsFloats(entries: ReadonlyMap<string, TensorEntry>): boolean {
  for (const { type } of entries.values()) {
    if (numbersOf(type) === undefined && type.name !== 'I64' && type.name !== 'BOOL') return false;
  }
  return true;
}

/** Of a model that was dequantized and kept the entry, or that is quantized as it is loaded. */
function kept(evidence: string, entry: string): Obstacle {
  return {
    kind: 'declared',
    what: `is quantized already, as it says: ${evidence}. All its tensors are floats`,
    advice: `If they are the weights themselves, of a model that was dequantized, remove ${entry} from config.json; else quantize the float original.`,
  };
}

function quantized(evidence: string): Obstacle {
  return {
    kind: 'quantized',
    what: `is quantized already: ${evidence}`,
    advice: 'Quantize the float original instead: what is quantized twice has the errors of both, and loads nowhere.',
  };
}

function adapterOf(
  entries: ReadonlyMap<string, TensorEntry>,
  path: string,
  files: readonly string[],
): Obstacle | undefined {
  const example = adapterTensor(entries);
  const file = files.length === 1 && isAdapterFile(files[0]!) ? files[0]! : undefined;
  const sign = example ?? file;
  if (sign === undefined) return unmergedOf(entries);
  const evidence =
    example === undefined ? `it holds ${plain(file!)} alone` : `its tensors are such as ${quote(example)}`;
  const rename = example === undefined ? ' If it holds a whole model, rename the file to model.safetensors.' : '';
  return { kind: 'adapter', what: `is an adapter, not a model: ${evidence}`, advice: mergeAdvice(path, sign) + rename };
}

function unmergedOf(entries: ReadonlyMap<string, TensorEntry>): Obstacle | undefined {
  const example = unmergedTensor(entries);
  if (example === undefined) return undefined;
  const what = `holds an adapter that is not merged: it has tensors such as ${quote(example)}`;
  return { kind: 'adapter', what, advice: UNMERGED_ADVICE };
}
