import type {
  Envelope,
  EnvelopeChange,
  LayerChange,
  Layout,
  LinearSite,
  OtherTensor,
  TensorEntry,
  TensorSource,
  TensorSpec,
} from '../../containers/container.js';
import { digestOf } from '../../containers/digest.js';
import { containerNamed } from '../../containers/list.js';
import { kindsOf, layerOf } from '../../containers/names.js';
import { storedFloat } from '../../containers/stored-types.js';
import { yieldIfDue } from '../../files/event-loop.js';
import type { ResolvedQuantConfig } from '../../matrix/config.js';
import type { Misfit } from '../../matrix/fit.js';
import { HqqError } from '../../messages/errors.js';
import { quote } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import { failureNotes, stackNotes } from '../../schemes/engines.js';
import { schemeFor, schemeNamed } from '../../schemes/list.js';
import type { PlannedLayer, Refused, Scheme } from '../../schemes/scheme.js';
import { modelDtypeOf } from '../model-dtype.js';
import type { ResolvedOptions } from '../options.js';
import type { DenseReport } from '../report.js';
import { classNameOf } from '../select/architecture.js';
import { knownOf, NOT_KNOWN } from '../select/known.js';
import { nothingLeft, selectLayers } from '../select/select.js';
import { tiedPairs, tieNotes } from '../select/ties.js';
import { embeddingsError, levelError, refineError, rejectMisfits, rejectUnloaded, typeError } from './misfits.js';

/** What one output file will hold. */
export interface ShardPlan {
  /** Name of the input file, which the output has too. */
  readonly file: string;
  readonly layers: readonly PlannedLayer[];
  /** Names of the tensors that are carried over as they are. */
  readonly copies: readonly string[];
}

/**
 * Everything that is known of a conversion before a weight is read. Plain data: what `JSON.parse(JSON.stringify(plan))` gives is
 * the same plan, and each of its shards can be written by itself, wherever the input is (`writeShard` in shards.ts).
 */
export interface ModelPlan {
  /** Of this form; another version of the package may have another. */
  readonly version: 1;
  /** `digestOf` the input. */
  readonly digest: string;
  /** Names of the container of the output and of the scheme of its layers. */
  readonly container: string;
  readonly scheme: string;
  /** The options that apply where no override says otherwise. */
  readonly config: ResolvedQuantConfig;
  readonly shards: readonly ShardPlan[];
  /** Tensors that stay, and why. */
  readonly dense: readonly DenseReport[];
  readonly notes: readonly string[];
  /** What changes around the tensors. */
  readonly change: Omit<EnvelopeChange, 'layers'>;
}

/**
 * Plans the quantized model.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT`: nothing to quantize, patterns that do nothing, a choice that would be misread;
 *   `ERR_GROUP_SIZE`: a group size that was asked for does not divide a layer.
 */
export async function planModel(
  source: TensorSource,
  { config, asked, model, own: had, run }: ResolvedOptions,
): Promise<ModelPlan> {
  const scheme = schemeFor(source, model.to);
  if (model.type !== undefined && !scheme.types) throw typeError(scheme, model.type);
  if (model.accuracyLevel !== undefined && scheme.name !== 'onnx') throw levelError(scheme);
  if (model.embeddings !== undefined && !scheme.embeddings) throw embeddingsError(scheme);
  if (model.refine && !scheme.refines) throw refineError(scheme);
  const known = await knownOf(source);
  const selection = await selectLayers(source, asked, { ...model, own: had }, scheme, known);
  const dense = [...selection.dense];
  const modelDtype = modelDtypeOf(source);
  await yieldIfDue();
  const layers: PlannedLayer[] = [];
  const misfits: (readonly [LinearSite, Misfit | Refused])[] = [];
  for (const { site, config: own } of selection.layers) {
    const { metaDtype, type, accuracyLevel } = model;
    const form = scheme.fit(site, { config: own, metaDtype, modelDtype, type, accuracyLevel, model: source });
    if ('reason' in form || 'refused' in form) misfits.push([site, form]);
    else if ('stays' in form) dense.push({ entry: site.weight, reason: form.stays, linear: site.stored === 'out-in' });
    else layers.push({ site, form });
    await yieldIfDue();
  }
  rejectMisfits(scheme, misfits);
  if (model.for !== undefined) rejectUnloaded(model.for, scheme, layers, dense, source.envelope.config);
  const described = source.envelope.config !== undefined; // else names need suit nobody
  const pairs = known ? tiedPairs(known, source.entries) : [];
  const unheld = pairs.filter(({ targetEntry, linear }) => linear && !targetEntry).map(({ target }) => target);
  // Of what names its class transformers is asked to load it, be the code of the class its own or a stranger's.
  const loaded = known !== undefined || classNameOf(source.envelope.config) !== undefined;
  const unloaded = loaded ? scheme.unloaded?.(layers, new Set(source.entries.keys()), model.for) : undefined;
  const { kept, left } = loaded
    ? tellApart(source, scheme, layers, dense, unheld, unloaded)
    : { kept: layers, left: [] };
  if (kept.length === 0) throw nothingLeft(source, { ...selection, dense: [...dense, ...left] });
  await rejectNameClashes(source, scheme, kept);
  await yieldIfDue();
  const moduleOf = (name: string) => known?.moduleOf(name) ?? name;
  const quantized = kept.map(({ site }) => moduleOf(site.name));
  const stays = [...dense, ...left]
    .filter(({ linear }) => linear)
    .map(({ entry, reason }) => {
      const layer = layerOf(entry.name);
      return { layer, module: moduleOf(layer), strange: reason.startsWith(NOT_KNOWN) };
    })
    // What is no module, as far as is known, keeps nothing else from being told apart.
    .filter(({ module, strange }) => !strange || !quantized.some((layer) => layer.includes(module)))
    .map(({ layer, module }) => ({ layer, module }));
  const without = unheld.map((module) => ({ layer: module, module }));
  const change = described ? scheme.declare(kept, [...stays, ...without], moduleOf) : { set: {}, drop: [] };
  return {
    version: 1,
    digest: await digestOf(source, run.signal),
    container: source.container,
    scheme: scheme.name,
    config,
    shards: planShards(source, scheme, kept),
    dense: reportDense(source, [...dense, ...left], kept),
    notes: [
      ...selection.notes,
      ...(await tieNotes(source, pairs, run.signal)),
      ...scheme.notes(kept, stays),
      ...stackNotes(
        kept.map(({ site }) => site.name),
        kindsOf(source.envelope.config),
      ),
      ...(kept.length > 0 ? failureNotes(scheme.name, kindsOf(source.envelope.config)) : []),
      ...source.envelope.notes,
    ],
    change,
  };
}

/** The layers that who loads the model loads, and can tell apart from what stays; and the others, which then stay too. */
function tellApart(
  { entries }: TensorSource,
  scheme: Scheme,
  layers: readonly PlannedLayer[],
  dense: readonly OtherTensor[],
  unheld: readonly string[],
  unloaded: ReadonlyMap<string, string> = new Map(),
): { readonly kept: readonly PlannedLayer[]; readonly left: readonly OtherTensor[] } {
  const taken = takenBy(layers);
  const tensors = [...entries.keys()].filter((name) => !taken.has(name));
  const stays = dense
    .filter(
      ({ linear, reason }) => linear && !/^(excluded$|not included)/.test(reason) && !reason.startsWith(NOT_KNOWN),
    )
    .map(({ entry }) => layerOf(entry.name));
  const names = layers.map(({ site }) => site.name);
  const apart = scheme.confused?.(names, [...stays, ...unheld], tensors) ?? new Map<string, string>();
  const confused = new Map([...unloaded, ...apart]);
  const left: OtherTensor[] = [];
  const stacks = new Set<string>(); // of which one expert that stays keeps all
  for (const { site } of layers) {
    const reason = confused.get(site.name);
    if (reason === undefined || stacks.has(site.partOf?.[0] ?? '')) continue;
    if (site.partOf) stacks.add(site.partOf[0]!);
    left.push({ entry: entries.get(site.partOf?.[0] ?? site.weight.name)!, reason, linear: site.partOf === undefined });
  }
  const isLeft = ({ site: { name, partOf } }: PlannedLayer) => confused.has(name) || stacks.has(partOf?.[0] ?? '');
  return { kept: layers.filter((layer) => !isLeft(layer)), left };
}

/** Names of the tensors that layers are made of, their biases among them. */
function takenBy(layers: readonly PlannedLayer[]): ReadonlySet<string> {
  return new Set(
    layers.flatMap(({ site: { weight, bias, partOf } }) => partOf ?? [weight.name, ...(bias ? [bias.name] : [])]),
  );
}

/** Without shards that would hold only biases, which go where their weights are: no index would name them. */
function planShards(source: TensorSource, scheme: Scheme, layers: readonly PlannedLayer[]): readonly ShardPlan[] {
  const taken = takenBy(layers);
  const shards = source.files.map(({ name, path }) => ({
    ...{ file: name, path, tensors: 0 },
    ...{ layers: [] as PlannedLayer[], copies: [] as string[] },
  }));
  const byFile = new Map(shards.map((shard) => [shard.file, shard]));
  for (const layer of layers) byFile.get(layer.site.weight.file)!.layers.push(layer);
  for (const entry of source.entries.values()) {
    const shard = byFile.get(entry.file)!;
    shard.tensors++;
    if (!taken.has(entry.name)) shard.copies.push(entry.name);
  }
  for (const { path, tensors, layers: own } of shards) {
    const count = tensors + own.reduce((sum, { form }) => sum + scheme.tensorsOf(form) - 1, 0);
    const bytes = own.reduce((sum, { site, form }) => sum + scheme.tensorsOf(form) * site.name.length, 0);
    const most = own.reduce((largest, { form }) => Math.max(largest, scheme.tensorsOf(form)), 0);
    const why = `${plural(own.length, 'layer')} of ${most} tensors`;
    containerNamed(source.container).demandRoom?.(path, count, bytes, why);
  }
  return shards
    .filter(({ layers: own, copies }) => own.length + copies.length > 0)
    .map(({ file, layers: own, copies }) => ({ file, layers: own, copies }));
}

/**
 * What a shard's output file will look like.
 *
 * @param envelope What will surround the tensors: `changedEnvelope`. Some containers keep it in the same file.
 */
export async function shardLayout(
  source: TensorSource,
  envelope: Envelope,
  plan: ModelPlan,
  { file, layers, copies }: ShardPlan,
): Promise<Layout> {
  const scheme = schemeNamed(plan.scheme);
  const specs: TensorSpec[] = copies.map((name) => specOf(source.entries.get(name)!));
  for (const layer of layers) {
    await yieldIfDue();
    specs.push(...scheme.specs(layer));
    const { bias } = layer.site;
    if (!bias) continue;
    const dtype = scheme.biasDtype(layer.form);
    specs.push(dtype === undefined ? specOf(bias) : { ...specOf(bias), type: storedFloat(dtype) });
  }
  return containerNamed(plan.container).layout(file, specs, envelope);
}

/** What will surround the tensors. */
export function changedEnvelope(source: TensorSource, { scheme, shards, change }: ModelPlan): Envelope {
  function* layers(): Generator<LayerChange> {
    for (const shard of shards) {
      for (const layer of shard.layers) yield { name: layer.site.name, tensors: schemeNamed(scheme).specs(layer) };
    }
  }
  const metadata = describedFiles(source, schemeNamed(scheme), shards);
  return source.envelope.replace({ layers: layers(), ...change, ...(metadata ? { metadata } : {}) });
}

/** What files say of their tensors, where the scheme has something to say: each of all of the model, as loaders put them together. */
function describedFiles(
  { entries, envelope }: TensorSource,
  scheme: Scheme,
  shards: readonly ShardPlan[],
): EnvelopeChange['metadata'] {
  if (scheme.metadata === undefined) return undefined;
  const layers = shards.flatMap((shard) => shard.layers);
  const biases = layers.flatMap(({ site: { bias } }) => (bias ? [bias] : []));
  const copies = shards.flatMap((shard) => shard.copies.map((name) => entries.get(name)!));
  const said = scheme.metadata(layers, [...copies, ...biases].map(specOf));
  return new Map(
    shards.map(({ file }) => [file, { ...Object.fromEntries(envelope.metadata?.(file) ?? []), ...said }] as const),
  );
}

function specOf({ name, type, shape }: TensorEntry): TensorSpec {
  return { name, type, shape };
}

/** Tensors of a layer must not have the name of one that is carried over, or of one of another layer. */
async function rejectNameClashes(
  { entries }: TensorSource,
  scheme: Scheme,
  layers: readonly PlannedLayer[],
): Promise<void> {
  const names = new Set<string>();
  for (const layer of layers) {
    const { site } = layer;
    const own = scheme.specs(layer).map(({ name }) => name);
    const marks = (scheme.marks ?? []).map((key) => `${site.name}.${key}`);
    for (const name of new Set([...own, ...marks])) {
      if (scheme.keepsName && name === site.weight.name) continue;
      if (!entries.has(name) && !names.has(name)) continue;
      const whose = entries.has(name) ? 'the model has' : 'another layer becomes';
      const message = `Expected ${quote(site.weight.name)} to be quantized into names of its own, but ${whose} ${quote(name)}`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}${entries.has(name) ? ' already' : ''}. Exclude it.`);
    }
    for (const name of own) names.add(name);
    await yieldIfDue();
  }
}

function reportDense(
  { entries }: TensorSource,
  dense: readonly OtherTensor[],
  layers: readonly PlannedLayer[],
): readonly DenseReport[] {
  const order = new Map([...entries.keys()].map((name, index) => [name, index]));
  const taken = takenBy(layers);
  return dense
    .filter(({ entry }) => !taken.has(entry.name))
    .sort((a, b) => order.get(a.entry.name)! - order.get(b.entry.name)!)
    .map(({ entry: { name, shape, type, begin, end }, reason }) => {
      return { name, shape, dtype: type.name, bytes: end - begin, reason };
    });
}
