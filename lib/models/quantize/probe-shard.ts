import { choosing } from '../../compute/auto.js';
import { bitsOf, widenBytes } from '../../compute/floats.js';
import { runTask } from '../../compute/run.js';
import { sampleImportance, sampleOf } from '../../compute/sample.js';
import type { TensorEntry } from '../../containers/container.js';
import { pieces, type Range, readRanges } from '../../containers/ranges.js';
import { rounding } from '../../containers/rounding.js';
import type { Scratch } from '../../containers/scratch.js';
import { numbersOf } from '../../containers/stored-types.js';
import { DTYPES } from '../../matrix/dtype.js';
import { geometryOf } from '../../matrix/geometry.js';
import { CHUNK_WEIGHTS } from '../../schemes/chunks.js';
import type { Chunk, LayerForm, PlannedLayer, Probe, WorkRun } from '../../schemes/scheme.js';
import { pipeline } from '../stream/pipeline.js';
import type { ShardPlan } from './plan.js';
import type { ShardRun } from './quantize-shard.js';
import { readWeights } from './read-weights.js';

/** Chunks in flight: one being read, one looked through. More would only push each other out of the caches. */
export const PROBE_SLOTS = 2;

/** A layer whose form the weights decide. */
interface Question {
  readonly layer: PlannedLayer;
  form: LayerForm;
}

type Job =
  | { readonly question: Question; readonly chunk: Chunk }
  | { readonly question: Question; readonly bias: TensorEntry; readonly piece: Range };

/**
 * The shard with the forms that its weights demand, or itself where they demand no others: nothing is written before the size of
 * everything is certain.
 */
export async function probeShard(shard: ShardPlan, run: ShardRun): Promise<ShardPlan> {
  const layers: PlannedLayer[] = [];
  for (const layer of shard.layers) layers.push(await chosen(layer, run));
  const { probe } = run.scheme;
  const questions = layers.map((layer): Question => ({ layer, form: layer.form }));
  const open = probe ? questions.filter(({ form }) => probe.needed(form)) : [];
  if (!probe || open.length === 0)
    return layers.every((layer, i) => layer === shard.layers[i]) ? shard : { ...shard, layers };
  open.sort((a, b) => a.layer.site.weight.begin - b.layer.site.weight.begin);
  const work = (job: Job, slot: Scratch, signal: AbortSignal) => ask(job, probe, run, slot, signal);
  await pipeline(run.slots.slice(0, PROBE_SLOTS), jobsOf(open, probe, run), work, run.signal);
  return { ...shard, layers: questions.map(({ layer, form }) => ({ ...layer, form })) };
}

/** A layer whose options are numbers: what is `'auto'` is chosen by some of its groups, before anything that depends on it. */
async function chosen(layer: PlannedLayer, run: ShardRun): Promise<PlannedLayer> {
  const [slot] = run.slots;
  const { site, form } = layer;
  const { auto, axis } = form.config;
  if (!slot || !auto) return layer;
  const signal = run.signal ?? new AbortController().signal;
  const geometry = geometryOf(site.shape, form.config);
  const sample = sampleOf(geometry, axis);
  const chunk = { weights: sample.weights, count: sample.rows * sample.cols };
  const { bytes } = await readWeights(run, layer, chunk, slot, signal);
  const dtype = numbersOf(site.weight.type)!;
  const { compute, importance } = workRun(layer, run, slot, signal);
  const trials = choosing(form.config, {
    ...{ sample, weights: bitsOf(bytes, dtype), dtype, axis, threads: run.threads },
    importance: importance && sampleImportance(sample, importance, geometry, axis),
  });
  let trial = trials.next();
  for (; !trial.done; trial = trials.next()) await compute('quantize', trial.value);
  run.counter.add(site.weight.name, 0, false); // a sign of life
  return { ...layer, form: { ...form, config: trial.value } };
}

function* jobsOf(open: readonly Question[], probe: Probe<LayerForm>, { scheme }: ShardRun): Generator<Job> {
  for (const question of open) {
    const { site, form } = question.layer;
    const { bias } = site;
    const to = scheme.biasDtype(form);
    if (bias && to !== undefined && numbersOf(bias.type) !== to) {
      for (const piece of pieces(site.shape[0], CHUNK_WEIGHTS)) yield { question, bias, piece };
    }
    for (const chunk of scheme.chunks(form)) {
      if (!probe.needed(question.form)) break; // answered
      yield { question, chunk };
    }
  }
}

function workRun({ site }: PlannedLayer, run: ShardRun, slot: Scratch, signal: AbortSignal): WorkRun {
  const compute: WorkRun['compute'] = async (operation, args) => {
    await run.stopwatch.time(() => runTask(run.backend, operation, args, { signal }));
  };
  return { slot, threads: run.threads, signal, importance: run.importance?.get(site.name), compute };
}

async function ask(
  job: Job,
  probe: Probe<LayerForm>,
  run: ShardRun,
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  const { question } = job;
  const { layer } = question;
  let answer: LayerForm;
  if ('chunk' in job) {
    const { bytes } = await readWeights(run, layer, job.chunk, slot, signal);
    answer = await probe.weights(layer, job.chunk, bytes, workRun(layer, run, slot, signal));
  } else {
    const dtype = numbersOf(job.bias.type)!;
    const { bytes: size } = DTYPES[dtype];
    const bytes = slot.take('weights', Uint8Array, job.piece.count * size);
    await readRanges(rounding(run.source), job.bias, [job.piece], size, bytes, slot, signal);
    const values = slot.take('bias', Float32Array, job.piece.count);
    widenBytes(bytes, dtype, values);
    answer = probe.bias(layer.form, values);
  }
  if (answer !== layer.form) question.form = answer;
  run.counter.add(layer.site.weight.name, 0, false); // a sign of life
}
