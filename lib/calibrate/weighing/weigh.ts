import { activeBackend } from '../../backend/index.js';
import type { TensorSource } from '../../containers/container.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quoteSome } from '../../messages/text.js';
import { formatCount, plural } from '../../messages/units.js';
import { IMPORTANCE_SOURCES } from '../../models/importance-options.js';
import type { ResolvedOptions } from '../../models/options.js';
import { sequentialError } from '../../models/quantize/misfits.js';
import type { ModelPlan } from '../../models/quantize/plan.js';
import type { Weighing } from '../../models/quantize/quantize.js';
import { schemeNamed } from '../../schemes/list.js';
import type { PlannedLayer } from '../../schemes/scheme.js';
import { solverNamed } from '../../solvers/solvers.js';
import type { CollectProgress } from '../collect.js';
import { giveBack } from '../give-back.js';
import { HEAD, moduleOf } from '../module-of.js';
import type { Statistics } from '../statistics.js';

// Importance for the layers of a model that is being quantized. Models that run are code that is read when one does.

const NONE: Weighing = { source: 'none', notes: [] };

/** `Weigh` of lib/models/quantize: finds what the errors of each input feature count, as the options say, and gives back what that took. */
export async function weigh(
  source: TensorSource,
  plan: ModelPlan,
  resolved: ResolvedOptions,
  folder: string,
): Promise<Weighing> {
  const weighed = await find(source, plan, resolved, folder);
  if (weighed.importance !== undefined) await giveBack();
  return weighed;
}

async function find(
  source: TensorSource,
  plan: ModelPlan,
  resolved: ResolvedOptions,
  folder: string,
): Promise<Weighing> {
  const { importance: asked, refine, sequential, seed, tokens, threads, dryRun } = resolved.model;
  if (refine) return refined(source, plan, resolved, folder);
  const layers = plan.shards
    .flatMap((shard) => shard.layers)
    .filter(({ form }) => (asked === 'auto' ? gains(form.config) : reads(form.config)));
  if (asked === 'none' || layers.length === 0) return NONE;
  if (sequential && plan.scheme !== 'hqq') throw sequentialError(schemeNamed(plan.scheme));
  if (sequential) await checkRuns(source, 'importance block by block (--sequential)');
  const importance = asked === 'auto' ? 'random' : asked;
  if (source.graphs !== undefined && !isSaved(importance))
    return ofGraphs(source, layers, plan, resolved, withoutGraphs(resolved));
  if (asked === 'auto' && !sequential) {
    const { obstacleTo } = await import('../runs.js');
    const obstacle = activeBackend().name === 'js' ? SLOW : await obstacleTo(source);
    if (obstacle !== undefined) return { source: 'none', notes: [notWeighed(obstacle)] };
  }
  if (dryRun) return { source: sourceOf(importance), notes: [] };
  const { signal, onProgress } = resolved.run;
  const head = layers.some((layer) => moduleOf(layer, source) === HEAD);
  const idle = { tensor: '', weightsDone: 0, tensorsDone: 0 };
  const collecting = {
    ...{ importance, seed, tokens, threads, signal, head },
    onProgress:
      onProgress && ((stand: CollectProgress) => onProgress({ ...idle, ...totalsOf(plan), importance: stand })),
  };
  if (sequential) {
    const { collectInSequence } = await import('../sequence.js');
    const configs = new Map(
      plan.shards.flatMap((shard) => shard.layers.map((layer) => [moduleOf(layer, source), layer])),
    );
    return applied(await collectInSequence(source.path, configs, collecting), layers, source);
  }
  const { collectImportance } = await import('../collect.js');
  return applied(await collectImportance(source.path, collecting), layers, source);
}

/** The same of graphs, which onnxruntime runs; in a dry run on a text of a few tokens, so that it is known whether it does. */
async function ofGraphs(
  source: TensorSource,
  layers: readonly PlannedLayer[],
  plan: ModelPlan,
  { model: { importance: asked, seed, tokens, threads, dryRun }, run: { signal, onProgress } }: ResolvedOptions,
  without: string | undefined,
): Promise<Weighing> {
  const { hasOnnxRuntime, MISSING } = await import('../graphs/engine.js');
  if (asked === 'auto' && !hasOnnxRuntime()) return { source: 'none', notes: [notWeighed(MISSING)] };
  const { collectGraphs } = await import('../graphs/collect.js');
  const idle = { tensor: '', weightsDone: 0, tensorsDone: 0 };
  try {
    const statistics = await collectGraphs(source, {
      ...{ importance: asked === 'auto' ? 'random' : asked, seed, threads, signal },
      tokens: dryRun ? Math.min(tokens, TRIAL_TOKENS) : tokens,
      without,
      only: new Set(layers.map(({ site: { name, original = name } }) => original)),
      onProgress: onProgress && ((stand) => onProgress({ ...idle, ...totalsOf(plan), importance: stand })),
    });
    return applied(statistics, layers, source);
  } catch (error) {
    const isOwn = error instanceof HqqError && /^ERR_(CHECKPOINT_|DEPENDENCY)/.test(error.code);
    if (asked !== 'auto' || !isOwn) throw error;
    return { source: 'none', notes: [notWeighed(error.message.replace(/\. Give inputs.*$|\.$/, ''))] };
  }
}

/** What a user says for graphs not to be run; undefined where nothing that was said has them run. */
function withoutGraphs({ model: { importance, refine } }: ResolvedOptions): string | undefined {
  const said = [
    ...(importance === 'auto' || importance === 'none' ? [] : ['--importance none']),
    ...(refine ? ['no --refine'] : []),
  ];
  return said.length === 0 ? undefined : said.join(', and ');
}

/** Tokens of the text that tells whether a graph runs. */
const TRIAL_TOKENS = 8;

/** Whether statistics are named that somebody has collected already. */
export const isSaved = (importance: ResolvedOptions['model']['importance']): boolean =>
  typeof importance === 'string' && !MADE.includes(importance) && !importance.startsWith('text:');

/** All words that name no file. */
const MADE: readonly string[] = IMPORTANCE_SOURCES;

/** The same with error feedback, for which importance is what its factors say. */
async function refined(
  source: TensorSource,
  plan: ModelPlan,
  resolved: ResolvedOptions,
  folder: string,
): Promise<Weighing> {
  const { importance: asked, dryRun } = resolved.model;
  const isGraph = source.graphs !== undefined;
  const without = withoutGraphs(resolved);
  const importance = asked === 'auto' || asked === 'none' ? (isGraph ? 'random' : 'own') : asked;
  const layers = plan.shards.flatMap((shard) => shard.layers);
  if (!isGraph) await checkRuns(source, 'error feedback (--refine)');
  if (dryRun) {
    const { isFit } = await import('../refine/refine-layers.js');
    const model = { ...resolved.model, importance };
    const trial = isGraph ? await ofGraphs(source, layers, plan, { ...resolved, model }, without) : undefined;
    const isFed = (layer: PlannedLayer) =>
      isFit(layer) && (trial ? trial.importance!.has(layer.site.name) : moduleOf(layer, source) !== HEAD);
    const rest = layers.filter((layer) => !isFed(layer)).map(({ site }) => site.name);
    return { source: sourceOf(importance), notes: [...unfedNotes(rest, layers), ...(trial?.notes ?? [])] };
  }
  const { onProgress } = resolved.run;
  const idle = { tensor: '', weightsDone: 0, tensorsDone: 0, ...totalsOf(plan) };
  const refine = isGraph
    ? (await import('../graphs/refine.js')).refineGraphs
    : (await import('../refine/refine-model.js')).refineModel;
  const {
    importance: found,
    refined: model,
    without: unfed,
  } = await refine(source, layers, {
    ...{ ...resolved.model, importance, folder, without, signal: resolved.run.signal },
    onProgress: onProgress && ((stand: CollectProgress) => onProgress({ ...idle, importance: stand })),
  });
  const unweighed = layers.map(({ site: { name } }) => name).filter((name) => !found.has(name));
  if (found.size === 0 && layers.length > 0) {
    await model.close();
    throw noneError(unweighed, `nothing finite was seen going into them (${sourceOf(importance)})`);
  }
  const notes = [
    'Errors are those of the weights as error feedback left them: hqq compare gives those to the original.',
    ...unfedNotes(unfed, layers),
    ...unweighedNotes(unweighed, layers),
  ];
  return { importance: found, source: sourceOf(importance), notes, refined: model };
}

/** @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what `hqq/runtime` does not run block by block */
async function checkRuns(source: TensorSource, what: string): Promise<void> {
  const { obstacleToRefine } = await import('../runs.js');
  const obstacle = await obstacleToRefine(source);
  if (obstacle === undefined) return;
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `Expected a model that hqq/runtime runs, for ${what}: ${obstacle}.`);
}

/** A model of a billion weights would read for hours. */
const SLOW = 'JavaScript computes here, in which the model would read for long (--importance random lets it)';

type Config = PlannedLayer['form']['config'];

/** Whether `auto` weighs a layer: 8 bits have nothing left to gain, and who asks for the reference's solver wants its codes. */
export function gains(config: Config): boolean {
  const { nbits, solver, prune } = config;
  return prune !== 0 || (reads(config) && nbits !== 8 && solver !== 'hqq');
}

/** Whether importance changes what becomes of a layer. */
function reads({ solver, prune }: Config): boolean {
  return prune !== 0 || solverNamed(solver).optimizes;
}

function sourceOf(importance: Exclude<ResolvedOptions['model']['importance'], 'auto' | 'none'>): string {
  if (typeof importance !== 'string') return 'inputs' in importance ? 'inputs' : 'text';
  return importance.startsWith('text:') ? 'text' : importance;
}

function totalsOf({ shards }: ModelPlan) {
  const layers = shards.flatMap((shard) => shard.layers);
  const weightsTotal = layers.reduce((sum, { site: { shape } }) => sum + shape[0] * shape[1], 0);
  return { weightsTotal, tensorsTotal: layers.length + shards.reduce((sum, { copies }) => sum + copies.length, 0) };
}

/** Statistics of the layers that they fit. Whoever asked for them by name is told which have none. */
function applied(
  { meanSquares, source: from }: Statistics,
  layers: readonly PlannedLayer[],
  source: TensorSource,
): Weighing {
  const importance = new Map<string, Float32Array>();
  const without: string[] = [];
  for (const layer of layers) {
    const { name, shape } = layer.site;
    const values = meanSquares.get(moduleOf(layer, source));
    if (values === undefined || !values.every(Number.isFinite)) without.push(name);
    else if (values.length === shape[1]) importance.set(name, values);
    else {
      const message = `Expected statistics of ${plain(name)} to have ${shape[1]} numbers, one an input feature, got ${values.length}`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. They are of another model.`);
    }
  }
  if (importance.size === 0) throw noneError(without, `${plain(from)} is of another model`);
  return { importance, source: from, notes: unweighedNotes(without, layers) };
}

function noneError(without: readonly string[], reason: string): HqqError {
  const message = `Expected statistics of the layers that are quantized (${quoteSome(without, 2)}), got none of any`;
  return new HqqError('ERR_CHECKPOINT_CONTENT', `${message}: ${reason}.`);
}

function unweighedNotes(without: readonly string[], layers: readonly PlannedLayer[]): readonly string[] {
  return without.length === 0
    ? []
    : [`There are no statistics of ${someOf(without, layers)}: all input features count alike there.`];
}

function unfedNotes(without: readonly string[], layers: readonly PlannedLayer[]): readonly string[] {
  return without.length === 0 ? [] : [`${someOf(without, layers)} have no error feedback.`];
}

function someOf(names: readonly string[], layers: readonly PlannedLayer[]): string {
  return `${plural(names.length, 'layer')} of ${formatCount(layers.length)} (${quoteSome(names, 2)})`;
}

function notWeighed(obstacle: string): string {
  return `Importance is none: ${obstacle}. All input features count alike; --importance names statistics of another origin.`;
}
