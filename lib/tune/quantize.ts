import { createHash } from 'node:crypto';
import { resolve } from 'node:path';
import { activeBackend } from '../backend/index.js';
import { fileOfText, textOfFile } from '../calibrate/text.js';
import { gains, weigh } from '../calibrate/weighing/weigh.js';
import { bytesOf } from '../compute/floats.js';
import { type FilePath, pathOf } from '../files/path.js';
import type { QuantConfig } from '../matrix/config.js';
import { geometryOf } from '../matrix/geometry.js';
import { HqqError } from '../messages/errors.js';
import { plain, quoteSome } from '../messages/text.js';
import { formatCount, formatPercent, plural } from '../messages/units.js';
import { digestOfAdapter } from '../models/adapter/lora.js';
import type { ConversionRun, ModelOptions, ResolvedOptions } from '../models/options.js';
import type { ModelPlan } from '../models/quantize/plan.js';
import { quantizeModel as quantizeWith, type Weigh, type Weighing } from '../models/quantize/quantize.js';
import { packageVersion } from '../models/quantize/version.js';
import type { ModelReport } from '../models/report.js';
import { type ResolvedTune, resolveTune } from '../models/tuning/option.js';
import { schemeNamed } from '../schemes/list.js';
import type { PlannedLayer } from '../schemes/scheme.js';
import { ChosenSource } from './chosen-source.js';
import { storedAsIn } from './grouped.js';
import type { BlockRecord, ModelRecord, Planned } from './records.js';
import { openTunedSource, type TunedSource } from './source.js';
import { TuneState } from './state.js';
import { tuneModel } from './tune-model.js';

/** As lib/queue/entry.ts says, through which the package exports it, of a model whose codes are tuned. */
export function quantizeModel(
  input: FilePath,
  output: FilePath,
  options?: QuantConfig & ModelOptions & ConversionRun,
): Promise<ModelReport> {
  return quantizeWith(input, output, options, weighAndTune(`${resolve(pathOf(output, 'the output'))}.tune`));
}

/** Finds what errors count, and what codes are better than those that the solver finds with that. */
const weighAndTune =
  (folder: string): Weigh =>
  async (source, plan, resolved, beside) => {
    const asGiven = resolveTune(resolved.model.tune);
    if (asGiven === undefined) return weigh(source, plan, resolved, beside);
    checkTunable(source, plan, asGiven);
    await checkRuns(source);
    const { path, kind, count: blocks } = await describe(source);
    const tune = await withText(settled(asGiven, kind, path));
    const { importance: asked, dryRun } = resolved.model;
    const ofText = asked === 'auto';
    const weighed: Weighing = ofText
      ? {
          source: ownSource(layersOf(plan), tune),
          notes: [],
        }
      : await weigh(source, plan, resolved, beside);
    if (dryRun) return weighed;
    const key = await keyOf(plan, resolved, tune, weighed);
    const planned = { blocks, layers: shapesOf(plan) };
    const state = await TuneState.open(folder, key, tune.restart, planned, resolved.run.signal);
    try {
      return await tuneInto(state, { tune, weighed, ofText, kind })(source, plan, resolved, beside);
    } catch (error) {
      await state.close();
      throw error;
    }
  };

/** What is known before a model is tuned. */
interface TunedWith {
  readonly tune: ResolvedTune;
  readonly weighed: Weighing;
  /** Whether importance is that of the text that is tuned with. */
  readonly ofText: boolean;
  readonly kind: TunedSource['kind'];
}

/** Tunes what is not tuned yet; the state is closed with the source that comes of it. */
const tuneInto =
  (state: TuneState, { tune, weighed, ofText, kind }: TunedWith): Weigh =>
  async (source, plan, resolved) => {
    const { seed, threads, adapter } = resolved.model;
    const scheme = schemeNamed(plan.scheme);
    const layers = tunableOf(plan);
    const { signal, onProgress } = resolved.run;
    const weightsTotal = layers.reduce((sum, { site: { shape } }) => sum + shape[0] * shape[1], 0);
    const idle = { tensor: '', weightsDone: 0, tensorsDone: 0, weightsTotal, tensorsTotal: layers.length };
    const left = await tuneModel(source.path, layers, state, {
      ...{ tune, seed, adapter, threads, signal },
      importance: ofText ? 'own' : weighed.importance,
      storedAsOf: storedAsIn(scheme),
      blocks: scheme.blockTuning,
      solverOnly: layersOf(plan).filter((layer) => obstacleOf(plan, layer) !== undefined),
      onText: onProgress && ((stand) => onProgress({ ...idle, importance: stand })),
      onProgress: onProgress && ((stand) => onProgress({ ...idle, tuning: stand })),
    });
    const notes = [
      ...weighed.notes,
      ...notesOf(state.blocks, tune),
      ...modelNotes(state.model, tune),
      ...leftNotes(
        left.map(({ site }) => site.name),
        layersOf(plan).length,
      ),
      ...obstacleNotes(plan),
      ...keepNotes(state.folder, tune, kind !== 'encoder' && scheme.blockTuning === undefined),
    ];
    const names = new Map(layersOf(plan).map(({ site }) => [site.weight.name, site.name]));
    const importance = ofText
      ? new Map([...(await state.importance())].map(([weight, values]) => [names.get(weight)!, values]))
      : weighed.importance;
    return {
      ...weighed,
      ...(importance && { importance }),
      notes,
      refined: new ChosenSource(
        source,
        async (weight) => {
          const chosen = await state.chosen(weight);
          if (chosen === undefined || scheme.blockTuning === undefined) return chosen;
          // Of a file that a folder becomes: rows of a block's layers are those of the folder.
          const entry = source.entries.get(weight)!;
          return { ...chosen, codes: source.inOrder?.(entry, chosen.codes) ?? chosen.codes };
        },
        () => state.close(),
      ),
      finished: () => (tune.keep ? state.close() : state.remove()),
    };
  };

const layersOf = (plan: ModelPlan): readonly PlannedLayer[] => plan.shards.flatMap((shard) => shard.layers);

/** Why a layer cannot be tuned as it will be stored; undefined: it can. */
const obstacleOf = (plan: ModelPlan, { form }: PlannedLayer) => schemeNamed(plan.scheme).blockTuning?.obstacle(form);

/** Those that can be tuned as they will be stored. */
const tunableOf = (plan: ModelPlan) => layersOf(plan).filter((layer) => obstacleOf(plan, layer) === undefined);

/** @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_CHECKPOINT_CONTENT` for what cannot be tuned as it will be stored */
function checkTunable(source: Parameters<Weigh>[0], plan: ModelPlan, { model }: ResolvedTune): void {
  const { takesChosen, blockTuning, title } = schemeNamed(plan.scheme);
  if (!takesChosen) {
    const message = `Expected a model that hqq/runtime runs block by block, to tune it (tune, --tune), got one for ${title}`;
    const advice = 'Tune the folder that it was made of, in another format';
    throw new HqqError('ERR_INVALID_OPTION', `${message}: nothing here computes gradients of a graph. ${advice}.`);
  }
  if (blockTuning === undefined) return;
  if (model > 0) {
    const message = `Expected no tuning of the whole model (tune.model, --tune-model) for ${title}`;
    throw new HqqError('ERR_INVALID_OPTION', `${message}, which hold codes and scales together, got ${model} steps.`);
  }
  if (source.of === undefined) {
    const message = `Expected a folder of safetensors to tune (tune, --tune), got ${plain(source.path)}`;
    const advice = 'Make a folder of it first (hqq dequantize model.gguf --out folder)';
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. ${advice}.`);
  }
  const [first] = layersOf(plan);
  if (first === undefined || tunableOf(plan).length > 0) return;
  const message = `Expected a type whose codes can be tuned (tune, --tune): ${obstacleOf(plan, first)}`;
  throw new HqqError('ERR_INVALID_OPTION', `${message}. Choose another (--type q4_k, --type q4_0).`);
}

/** Layers that are left to the solver, and why. */
function obstacleNotes(plan: ModelPlan): readonly string[] {
  const left = new Map<string, string[]>();
  for (const layer of layersOf(plan)) {
    const why = obstacleOf(plan, layer);
    if (why !== undefined) left.set(why, [...(left.get(why) ?? []), layer.site.name]);
  }
  return [...left].map(
    ([why, names]) => `${plural(names.length, 'layer')} (${quoteSome(names, 2)}) were not tuned: ${why}.`,
  );
}

/** What importance is of that is `auto`. */
function ownSource(layers: readonly PlannedLayer[], { data }: ResolvedTune): string {
  if (!layers.some(({ form }) => gains(form.config))) return 'none';
  return data === 'own' || data === 'random' ? data : 'text';
}

/** A text that a file holds, as the file is now: what is tuned with does not change with it. @throws {HqqError} as `textOfFile` */
async function withText(tune: ResolvedTune): Promise<ResolvedTune> {
  const file = typeof tune.data === 'string' ? fileOfText(tune.data) : undefined;
  return file === undefined ? tune : { ...tune, data: { text: await textOfFile(file) } };
}

/** All that decides the bytes of a run: of files what they hold. Threads do not. */
async function keyOf(
  plan: ModelPlan,
  { model }: ResolvedOptions,
  tune: ResolvedTune,
  weighed: Weighing,
): Promise<unknown> {
  const { restart: _restart, keep: _keep, model: _model, data, ...how } = tune; // all layers are tuned together from the same blocks
  const layers = plan.shards.flatMap((shard) => shard.layers.map(({ site, form }) => [site.weight.name, form]));
  const { backend, isa } = { backend: activeBackend().name, isa: activeBackend().isa };
  const importance = createHash('sha256');
  for (const [name, values] of weighed.importance ?? []) importance.update(`${name}\0`).update(bytesOf(values));
  return [
    packageVersion(),
    plan.digest,
    plan.scheme,
    layers,
    how,
    typeof data === 'string' ? data : createHash('sha256').update(data.text).digest('hex'),
    model.seed,
    model.tokens,
    model.importance,
    model.adapter === undefined ? undefined : await digestOfAdapter(model.adapter),
    weighed.source,
    importance.digest('hex'),
    backend,
    isa,
  ];
}

/** What is kept of each layer, by name of its weight. */
const shapesOf = (plan: ModelPlan): Planned['layers'] =>
  new Map(
    plan.shards.flatMap((shard) =>
      shard.layers.map(({ site: { weight, shape }, form }) => {
        const blocks = schemeNamed(plan.scheme).blockTuning?.bytes(form);
        const codes = blocks ?? shape[0] * shape[1];
        const groups = blocks === undefined ? geometryOf(shape, form.config).groups : 0;
        return [weight.name, { codes, groups, inputs: shape[1] }] as const;
      }),
    ),
  );

async function describe({ path }: Parameters<Weigh>[0]): Promise<Pick<TunedSource, 'path' | 'kind' | 'count'>> {
  const { kind, count, close } = await openTunedSource(path);
  await close();
  return { path, kind, count };
}

/** What is tuned with, by the kind of model. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what encoders cannot give */
function settled(tune: ResolvedTune, kind: TunedSource['kind'], path: string): ResolvedTune {
  const isEncoder = kind === 'encoder';
  const refuse = (expected: string, out: string): never => {
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected a model that ${expected}, got ${plain(path)}, an encoder. ${out}`,
    );
  };
  if (isEncoder && tune.data === 'own')
    refuse('writes text, to tune it with its own (own)', 'random needs none; text:<file> names one.');
  if (isEncoder && tune.model > 0)
    refuse('gives probabilities, to tune all layers together (tune.model)', 'Leave --tune-model out.');
  return tune.data === 'auto' ? { ...tune, data: isEncoder ? 'random' : 'own' } : tune;
}

/** @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what `hqq/runtime` does not run block by block */
async function checkRuns(source: Parameters<Weigh>[0]): Promise<void> {
  const { obstacleTo } = await import('../calibrate/runs.js');
  const obstacle = await obstacleTo(source);
  if (obstacle === undefined) return;
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `Expected a model that hqq/runtime runs, to tune it (--tune): ${obstacle}.`,
  );
}

function notesOf(blocks: readonly BlockRecord[], { steps }: ResolvedTune): readonly string[] {
  const own = blocks.filter(({ layers }) => layers.some(({ codes }) => codes > 0)); // others were left to the solver
  const kept = own.filter(({ before, after }) => after < before);
  if (own.length === 0) return [];
  // Of a block without error nothing is left to gain.
  const left = own.map(({ before, after }) => (before === 0 ? 1 : Math.min(after, before) / before));
  const mean = left.reduce((sum, part) => sum + Math.log(part), 0) / own.length;
  const what = `Tuned ${plural(own.length, 'block')} in ${plural(steps, 'step')} each`;
  const was = own.length - kept.length;
  const idle = own.flatMap(({ layers }) => layers).filter(({ reached }) => !reached).length;
  return [
    `${what}: their errors on tokens that were held back are ${formatPercent(Math.exp(mean))} of what they were; ` +
      `${was === 0 ? 'none was' : `${formatCount(was)} ${was === 1 ? 'was' : 'were'}`} better before, and stayed so.`,
    ...(idle === 0 ? [] : [`No token reached ${plural(idle, 'layer')} of experts: what the solver found stays there.`]),
  ];
}

function modelNotes(model: ModelRecord | undefined, { model: steps }: ResolvedTune): readonly string[] {
  if (model === undefined) return [];
  const [before, after] = [model.before, model.after].map((nats) => `${nats.toPrecision(3)} nats`);
  const what = `Moved scales and zeros of all layers together in ${plural(steps, 'step')}`;
  const kept = model.layers.length > 0 ? '' : '; what was before is better, and stays';
  return [`${what}: probabilities on tokens that were held back are off by ${after}, not ${before}${kept}.`];
}

function keepNotes(folder: string, { keep }: ResolvedTune, hasLastStage: boolean): readonly string[] {
  if (!keep) return [];
  const also = hasLastStage ? ', also with another last stage (tune.model, --tune-model)' : '';
  return [`What was tuned stays in ${plain(folder)}; with force (--force) the same run goes on from it${also}.`];
}

function leftNotes(left: readonly string[], of: number): readonly string[] {
  if (left.length === 0) return [];
  const [are, were] = left.length === 1 ? ['is', 'was'] : ['are', 'were'];
  const what = `${plural(left.length, 'layer')} of ${formatCount(of)} (${quoteSome(left, 2)})`;
  return [`${what} ${are} in no block, and ${were} not tuned.`];
}
