import type { Checkpoint, CheckpointTensor } from '../containers/safetensors/checkpoint.js';
import { MAX_HEADER_BYTES, MAX_TENSORS } from '../containers/safetensors/header.js';
import { type Layout, planLayout, type TensorSpec } from '../containers/safetensors/layout.js';
import type { SafetensorsFile } from '../containers/safetensors/reader.js';
import type { QuantConfig } from '../matrix/config.js';
import { DTYPES } from '../matrix/dtype.js';
import { formOf, type LayerForm, type Misfit } from '../matrix/fit.js';
import { HqqError } from '../messages/errors.js';
import { plain, quote, quoteSome } from '../messages/text.js';
import { formatBytes, formatCount, plural } from '../messages/units.js';
import { isOptimized, LAYER_KEYS, largeSpecs, type StoredLayer, smallTensors } from '../schemes/hqq/state-dict.js';
import type { ResolvedModelOptions } from './options.js';
import type { ModelReport } from './report.js';
import { type DenseTensor, nothingLeft, type SelectedWeight, selectWeights } from './select/select.js';
import { checkChunks } from './stream/chunks.js';

/** A layer to be quantized, and where it comes from. */
export interface LayerPlan extends StoredLayer {
  readonly weight: CheckpointTensor;
  readonly bias: CheckpointTensor | undefined;
  readonly adapted: string | undefined;
}

/** What one output file will hold. */
export interface ShardPlan {
  /** The input file, whose name the output has. */
  readonly file: SafetensorsFile;
  readonly layers: readonly LayerPlan[];
  /** Tensors that are carried over as they are. */
  readonly copies: readonly CheckpointTensor[];
}

/** Everything that is known before a weight is read. */
export interface ModelPlan {
  readonly checkpoint: Checkpoint;
  readonly shards: readonly ShardPlan[];
  readonly dense: ModelReport['dense'];
  readonly notes: readonly string[];
  /** Value of `quantization_config` in config.json; undefined where there is none, and names need suit nobody. */
  readonly quantization: unknown;
}

/**
 * Plans the quantized model.
 *
 * @param asked The options as they were given: defaults may give way where a layer needs it.
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT`: nothing to quantize, patterns that do nothing, a choice that Python would misread;
 *   `ERR_GROUP_SIZE`: a group size that was asked for does not divide a layer.
 */
export function planModel(checkpoint: Checkpoint, asked: QuantConfig, options: ResolvedModelOptions): ModelPlan {
  const selection = selectWeights(checkpoint, asked, options);
  const dense: DenseTensor[] = [...selection.dense];
  const notes = [...selection.notes];
  const layers: LayerPlan[] = [];
  const misfits: (readonly [SelectedWeight, Misfit])[] = [];
  const metaDtype = options.metaDtype === 'float32' ? 'float32' : 'float16';
  for (const weight of selection.weights) {
    const form = formOf(weight.shape, weight.config);
    if ('reason' in form) misfits.push([weight, form]);
    else layers.push(planLayer(weight, form, metaDtype));
  }
  if (misfits.length > 0) throw misfitError(misfits);
  if (layers.length === 0) throw nothingLeft(checkpoint.path, dense);

  const modules = new Set(layers.map(({ module }) => module));
  rejectNameClashes(checkpoint, layers);
  const quantization = checkpoint.config && quantizationConfig(layers, skipModules(modules, dense));
  const taken = new Set(layers.flatMap(({ weight, bias }) => [weight, ...(bias ? [bias] : [])]));
  const shards = checkpoint.files.map((file) => ({
    file,
    layers: [] as LayerPlan[],
    copies: [] as CheckpointTensor[],
  }));
  const byFile = new Map(shards.map((shard) => [shard.file, shard]));
  for (const layer of layers) {
    const { geometry, config, format, weight } = layer;
    checkChunks(plain(weight.entry.name), { geometry, axis: config.axis, format, config });
    byFile.get(weight.file)!.layers.push(layer);
  }
  for (const { file, layers: own } of shards) checkHeader(file, own);
  for (const tensor of checkpoint.tensors.values())
    if (!taken.has(tensor)) byFile.get(tensor.file)!.copies.push(tensor);
  if (!checkpoint.config) {
    const where = checkpoint.folder === undefined ? 'A single file has' : `${plain(checkpoint.path)} has`;
    notes.push(`${where} no config.json: Python needs one, with a quantization_config, beside the output to load it.`);
  }
  if (checkpoint.skippedFiles.length > 0) {
    const names = quoteSome(checkpoint.skippedFiles);
    notes.push(`Not carried over (weights in other formats, not regular files, links that lead elsewhere): ${names}.`);
  }
  return { checkpoint, shards, dense: reportDense(checkpoint, dense, layers), notes, quantization };
}

/** What was asked for is kept or refused: a layer that is left as it is would be found out by the size of the output. */
function misfitError(misfits: readonly (readonly [SelectedWeight, Misfit])[]): HqqError {
  const [{ module }, { asked, sizes }] = misfits[0]!;
  const like = misfits.filter(([, misfit]) => misfit.asked === asked);
  const names = like.slice(0, 3).map(([{ weight, shape }]) => `${quote(weight.entry.name)} (${shape.join(' x ')})`);
  const more = like.length > names.length ? ` and ${like.length - names.length} more` : '';
  const size = sizes[0]!;
  return new HqqError(
    'ERR_GROUP_SIZE',
    `Expected groupSize to divide the weights of every layer that it was asked for, got ${asked} for ${names.join(', ')}` +
      `${more}. Leave it out, and such layers take a size that fits; or give them one of their own, as in ` +
      `overrides: { ${quote(module)}: { groupSize: ${size} } } (--override ${quote(`${module}:group-size=${size}`)}); or exclude them.`,
  );
}

/** Shortest text of a tensor in a header, save its name: dtype, shape, offsets. */
const SHORTEST_ENTRY = '"":{"dtype":"U8","shape":[],"data_offsets":[0,1]},'.length;

/** Refuses what `planLayout` would refuse, before hundreds of thousands of layers are laid out. */
function checkHeader(file: SafetensorsFile, layers: readonly LayerPlan[]): void {
  const refuse = (most: string, need: string) => {
    const message = `Expected ${most} for each file, but ${plain(file.path)} would need ${need}`;
    const cause = `${plural(layers.length, 'layer')} of ${LAYER_KEYS.length} tensors`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}: ${cause}. Split the model into shards.`);
  };
  const least = layers.reduce((sum, { module }) => sum + LAYER_KEYS.length * (module.length + SHORTEST_ENTRY), 0);
  if (least > MAX_HEADER_BYTES)
    refuse(`a header of at most ${formatBytes(MAX_HEADER_BYTES)}`, `${formatBytes(least)} or more`);
  const count = file.tensors.size + layers.length * (LAYER_KEYS.length - 1);
  if (count > MAX_TENSORS) refuse(`at most ${formatCount(MAX_TENSORS)} tensors`, formatCount(count));
}

function planLayer(selected: SelectedWeight, form: LayerForm, metaDtype: LayerPlan['metaDtype']): LayerPlan {
  const { module, shape, weight, bias } = selected;
  const { config, format, geometry, adapted } = form;
  return { module, shape, weight, bias, config, format, geometry, metaDtype, adapted };
}

/** The tensors of a shard's output file. */
export function shardLayout({ file, layers, copies }: ShardPlan): Layout {
  const specs: TensorSpec[] = copies.map(({ entry: { name, dtype, shape } }) => ({ name, dtype, shape }));
  for (const layer of layers) {
    specs.push(...largeSpecs(layer), ...smallTensors(layer));
    if (layer.bias) {
      specs.push({
        name: layer.bias.entry.name,
        dtype: DTYPES[layer.metaDtype].safetensors,
        shape: layer.bias.entry.shape,
      });
    }
  }
  return planLayout(specs, withFormat(file.metadata));
}

/** The original's metadata, with the `format` that transformers 4.46 demands. */
export function withFormat(metadata: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  return new Map([...metadata, ['format', 'pt']]);
}

/** A tensor that is carried over must not have the name of a new one. */
function rejectNameClashes({ tensors }: Checkpoint, layers: readonly LayerPlan[]): void {
  for (const layer of layers) {
    for (const { name } of [...largeSpecs(layer), ...smallTensors(layer)]) {
      if (!tensors.has(name)) continue;
      const weight = quote(`${layer.module}.weight`);
      const message = `Expected ${weight} to be quantized into names of its own, but the model has ${quote(name)} already`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Exclude it.`);
    }
  }
}

function reportDense(
  checkpoint: Checkpoint,
  dense: readonly DenseTensor[],
  layers: readonly LayerPlan[],
): ModelReport['dense'] {
  const order = new Map([...checkpoint.tensors.keys()].map((name, index) => [name, index]));
  const biases = new Set(layers.flatMap(({ bias }) => (bias ? [bias] : [])));
  return dense
    .filter(({ tensor }) => !biases.has(tensor))
    .sort((a, b) => order.get(a.tensor.entry.name)! - order.get(b.tensor.entry.name)!)
    .map(({ tensor: { entry }, reason }) => {
      const { name, shape, dtype, begin, end } = entry;
      return { name, shape, dtype, bytes: end - begin, reason };
    });
}

/**
 * Modules that Python must not expect to be quantized: the head, and all that are, or may be, linear layers. transformers
 * 4.50 to 4.57 look for an entry anywhere in a module's name, as text.
 */
function skipModules(quantized: ReadonlySet<string>, dense: readonly DenseTensor[]): readonly string[] {
  const names = dense
    .filter(({ linear }) => linear)
    .map(({ tensor: { entry } }) => entry.name.slice(0, -'.weight'.length));
  const text = `\n${[...quantized].join('\n')}\n`;
  // Encoders have `lm_head.dense` and no layer called `lm_head`: that entry is then only in the way.
  const head = names.includes('lm_head') || !text.includes('lm_head') ? ['lm_head'] : [];
  const skip = [...new Set([...head, ...names])];
  for (const entry of skip) {
    const at = text.indexOf(entry);
    if (at < 0) continue;
    const hit = text.slice(text.lastIndexOf('\n', at) + 1, text.indexOf('\n', at));
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected names that Python tells apart: ${quote(entry)} would stay as it is and ${quote(hit)} be quantized, but ` +
        'transformers 4.50 to 4.57 would take the first name, as part of the second, to mean both. ' +
        'Exclude both or quantize both.',
    );
  }
  return skip;
}

/** What transformers writes, with the truth for most layers: it reads the rest from each layer's keys, vLLM only this. */
function quantizationConfig(layers: readonly LayerPlan[], skip: readonly string[]): unknown {
  const counts = new Map<string, { count: number; config: LayerPlan['config'] }>();
  for (const { config } of layers) {
    const key = [config.nbits, config.groupSize, config.axis, isOptimized(config), config.roundZero].join();
    const row = counts.get(key) ?? { count: 0, config };
    row.count++;
    counts.set(key, row);
  }
  const { config } = [...counts.values()].reduce((most, row) => (row.count > most.count ? row : most));
  return {
    quant_config: {
      offload_meta: false,
      scale_quant_params: null,
      weight_quant_params: {
        axis: config.axis,
        channel_wise: true,
        group_size: config.groupSize,
        nbits: config.nbits,
        optimize: isOptimized(config),
        round_zero: config.roundZero,
        view_as_float: false,
      },
      zero_quant_params: null,
    },
    quant_method: 'hqq',
    skip_modules: skip,
  };
}
