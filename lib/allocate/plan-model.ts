import { collectImportance } from '../calibrate/collect.js';
import { drawTexts, expectedShares } from '../calibrate/likely.js';
import { languageReader } from '../calibrate/reader.js';
import { openSource } from '../containers/list.js';
import { inTurns, type Steps } from '../files/event-loop.js';
import { type FilePath, pathOf } from '../files/path.js';
import { HqqError } from '../messages/errors.js';
import { refuseSurplus } from '../messages/surplus.js';
import { formatBytes } from '../messages/units.js';
import { type BlockSource, openBlockSource } from '../runtime/source/block-source.js';
import { Budget, type Choice, inOrder } from './budget.js';
import { type Candidate, type Choices, choicesOf, narrowed, type Unit } from './candidates.js';
import { type PlanOptions, type ResolvedPlan, resolvePlanOptions } from './options.js';
import type { MeasuredPlan } from './plan-report.js';
import { divergences, type Probe, type Probing, workOf } from './sensitivity.js';

/** How a target may be missed. */
const TOLERANCE = 0.01;
/** How many times as many ids whole plans are checked on as layers are measured on: there are few of them. */
const CHECKS = 4;
/** Points of the trade-off that a plan tells. */
const CURVE_POINTS = 25;

/**
 * Finds how many bits each layer of a language model needs, for a mean that is asked for: measures what the quantization of every layer
 * alone does to the model's next tokens (Kullback-Leibler divergence on random tokens, as often as it expects them), assigns bits with the least sum by dynamic
 * programming, and keeps that where, as a whole and on other ids, it is nearer to the model than uniform bits of the same size. The model
 * is read block by block. q, k and v get the same bits, and so do gate and up.
 *
 * @example
 * const plan = await planModel('Llama-3.2-1B', { targetBits: 3.2 });
 * await quantizeModel('Llama-3.2-1B', 'Llama-3.2-1B-hqq', { plan });
 * @throws {HqqError} `ERR_INVALID_OPTION` (also for a target that no choice comes to), `ERR_GROUP_SIZE`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`,
 *   `ERR_OUT_OF_MEMORY`; `ERR_CHECKPOINT_CONTENT` for a model that the runtime does not run, or that is quantized already; the signal's reason
 */
export async function planModel(model: FilePath, options: PlanOptions = {}): Promise<MeasuredPlan> {
  refuseSurplus(arguments.length, 2, 'planModel(model, options)');
  const path = pathOf(model, 'the model', 'a model folder');
  const asked = resolvePlanOptions(options);
  const { signal, threads } = asked;
  signal?.throwIfAborted();
  const blocks = await openBlockSource(path, { threads, signal });
  try {
    const all = await readChoices(path, blocks, asked);
    const choices = asked.isFree ? around(all, targetOf(all, asked)) : all;
    const target = targetOf(choices, asked);
    const importance = await importanceOf(path, asked);
    return await plan(blocks, choices, target, importance, asked);
  } finally {
    await blocks.close();
  }
}

async function readChoices(path: string, blocks: BlockSource, asked: ResolvedPlan): Promise<Choices> {
  const source = await openSource(path);
  try {
    const { config, widths, groupSizes, signal } = asked;
    return await choicesOf(source, config, { widths, groupSizes, units: blocks.units, signal });
  } finally {
    await source.close();
  }
}

/** What is to be spent, of what each unit's candidates cost. */
interface Target {
  readonly unit: 'bits' | 'bytes';
  readonly budget: number;
  readonly costs: readonly (readonly number[])[];
}

/** @throws {HqqError} `ERR_INVALID_OPTION` for what no choice comes to. */
function targetOf({ units, otherBytes }: Choices, { targetBits, targetBytes }: ResolvedPlan): Target {
  const unit = targetBits === undefined ? 'bytes' : 'bits';
  const costs = units.map((one) => one[unit]);
  const weights = sumOf(units, (one) => one.weights);
  const budget = targetBits === undefined ? targetBytes! - otherBytes : targetBits * weights;
  const [least, most] = [Math.min, Math.max].map((pick) => sumOf(costs, (own) => pick(...own))) as [number, number];
  if (budget >= least * (1 - 1e-9) && budget * (1 - TOLERANCE) <= most) return { unit, budget, costs };
  const range =
    unit === 'bits'
      ? `from ${round(least / weights)} to ${round(most / weights)}, which the widths come to, got ${targetBits}`
      : `from ${formatBytes(least + otherBytes)} to ${formatBytes(most + otherBytes)}, which the widths come to, got ${formatBytes(targetBytes!)}`;
  throw new HqqError(
    'ERR_INVALID_OPTION',
    `Expected ${unit === 'bits' ? 'targetBits (--target-bits)' : 'targetSize (--target-size)'} ${range}.`,
  );
}

/** Of all widths those around the target: others would be measured, and hardly be taken. */
function around(choices: Choices, { budget, costs }: Target): Choices {
  const below = widthBelow(costs, choices.widths, budget);
  return narrowed(choices, Math.max(below - 1, 0), Math.min(below + 1, choices.widths - 1));
}

/** The widest codes, in groups of the first size, that the budget has for all layers; the narrowest where it has none. */
function widthBelow(costs: Target['costs'], widths: number, budget: number): number {
  const all = Array.from({ length: widths }, (_, c) => sumOf(costs, (own) => own[c]!));
  return Math.max(
    all.findLastIndex((cost) => cost <= budget * (1 + 1e-9)),
    0,
  );
}

async function importanceOf(path: string, asked: ResolvedPlan): Promise<ReadonlyMap<string, Float32Array>> {
  const { importance, seed, tokens, threads, signal, onProgress } = asked;
  if (importance === 'none') return new Map();
  const { meanSquares } = await collectImportance(path, {
    ...{ importance, seed, tokens, threads, signal, head: false },
    onProgress: onProgress && (({ done, total }) => onProgress({ phase: 'importance', done, total })),
  });
  return meanSquares;
}

type Assignment = readonly number[];

async function plan(
  source: BlockSource,
  choices: Choices,
  target: Target,
  importance: ReadonlyMap<string, Float32Array>,
  asked: ResolvedPlan,
): Promise<MeasuredPlan> {
  const { units, candidates } = choices;
  const { seed, signal, probeTokens, config, onProgress } = asked;
  const progress = (done: number, total: number) => onProgress?.({ phase: 'importance', done, total });
  const shares = await expectedShares(languageReader(source), { seed, signal, progress });
  const probe = async (phase: 'measuring' | 'checking', step: number, probes: readonly Probe[]) => {
    const tokens = phase === 'measuring' ? probeTokens : CHECKS * probeTokens;
    const own = (seed + step) % Number.MAX_SAFE_INTEGER;
    const ids = await drawTexts(shares, source.config, { tokens, seed: own, signal: asked.signal });
    return runProbes(source, ids, probes, { phase, importance, asked });
  };

  const alone = units.map((unit) => candidates.map((candidate) => probeOf([unit], [candidate])));
  const measured = await probe('measuring', 1, alone.flat());
  const losses = alone.map((own) => own.map((one) => round(measured.get(one)!)));
  const table: readonly (readonly Choice[])[] = losses.map((own, u) =>
    own.map((loss, c) => ({ loss, cost: target.costs[u]![c]! })),
  );
  const budget = await inTurns(Budget.of(table), asked.signal);
  const [narrow, wide] = nearest(target, choices.widths);
  const plain = inOrder(table, [narrow, wide], target.budget);
  const drafts = [
    allot(budget, target.budget),
    ...(await inTurns(between(table, [narrow, wide], target.budget), asked.signal)),
  ];

  const whole = (assignment: Assignment) =>
    probeOf(
      units,
      assignment.map((c) => candidates[c]!),
    );
  const tried = drafts.map(whole);
  const first = await probe('checking', 1, tried);
  const best = tried.reduce((a, b) => (first.get(b)! < first.get(a)! ? b : a));
  const planned = drafts[tried.indexOf(best)]!;
  const ends = narrow === wide ? [] : [whole(units.map(() => narrow)), whole(units.map(() => wide))];
  const uniform = whole(plain);
  const second = await probe('checking', 2, [best, uniform, ...ends]);

  const costOf = (assignment: Assignment) => sumOf(assignment, (c, u) => table[u]![c]!.cost);
  const scoreOf = (assignment: Assignment, one: Probe) => ({
    ...sizesOf(choices, assignment),
    divergence: round(second.get(one)!),
  });
  const [low, high] = [narrow, wide].map((c) => costOf(units.map(() => c))) as [number, number];
  const share = (costOf(planned) - low) / (high - low);
  const line =
    ends.length === 0 ? undefined : round((1 - share) * second.get(ends[0]!)! + share * second.get(ends[1]!)!);
  const [mixed, even] = [scoreOf(planned, best), scoreOf(plain, uniform)];
  const wins = mixed.divergence < even.divergence && (line === undefined || mixed.divergence < line);
  const kept = wins ? planned : plain;
  const sizes = sizesOf(choices, kept);
  const weights = sumOf(units, (unit) => unit.weights);
  return {
    version: 1,
    model: choices.digest,
    config,
    overrides: Object.fromEntries(
      units.flatMap(({ modules }, u) => modules.map((module) => [module, candidates[kept[u]!]!.override])),
    ),
    report: {
      target: asked.targetBits === undefined ? { bytes: asked.targetBytes! } : { bits: asked.targetBits },
      ...{ kept: wins ? 'mixed' : 'uniform', ...sizes },
      bitsPerWeight: round((8 * sumOf(units, ({ bytes }, u) => bytes[kept[u]!]!)) / weights),
      ...{ planned: mixed, uniform: even, ...(line !== undefined && { line }) },
      sensitivity: units.map(({ modules }, u) => ({ layers: modules, divergence: losses[u]! })),
      candidates: candidates.map(({ override }) => override as { nbits: number; groupSize?: number }),
      curve: budget.curve(CURVE_POINTS).map(({ cost, loss }) => ({
        ...(target.unit === 'bits' ? { bits: round(cost / weights) } : { bytes: cost + choices.otherBytes }),
        loss: round(loss),
      })),
      ...{ seed, probeTokens },
    },
  };
}

/** Runs probes and tells how far they are. */
async function runProbes(
  source: BlockSource,
  ids: readonly Uint32Array[],
  probes: readonly Probe[],
  {
    phase,
    importance,
    asked,
  }: {
    readonly phase: 'measuring' | 'checking';
    readonly importance: Probing['importance'];
    readonly asked: ResolvedPlan;
  },
): Promise<ReadonlyMap<Probe, number>> {
  const { threads, signal, onProgress } = asked;
  const total = workOf(source, ids, probes);
  let done = 0;
  const advance = (count: number) => {
    done += count;
    onProgress?.({ phase, done, total });
  };
  advance(0);
  return divergences(source, ids, probes, { importance, threads, signal, advance });
}

function probeOf(units: readonly Unit[], candidates: readonly Candidate[]): Probe {
  const layers = units.flatMap(({ modules }, u) => modules.map((module) => [module, candidates[u]!] as const));
  return { first: Math.min(...units.map(({ block }) => block)), layers: new Map(layers) };
}

/** The widths between which the budget lies, both with the first group size, as indices of candidates: the same one twice where it is one. */
function nearest({ costs, budget }: Target, widths: number): readonly [number, number] {
  const narrow = widthBelow(costs, widths, budget);
  const isThere = sumOf(costs, (own) => own[narrow]!) >= budget * (1 - TOLERANCE) || narrow === widths - 1;
  return [narrow, isThere ? narrow : narrow + 1];
}

/** What loses least within the tolerance below the budget; where no choice comes to that, what is nearest below it. */
function allot(budget: Budget, most: number): Assignment {
  const top = most * (1 + 1e-9);
  return (budget.best(most * (1 - TOLERANCE), top) ?? budget.best(0, top))!.choices;
}

/** The same with the two nearest widths alone: sums tell less of a model in which some layers have few bits. */
function* between(
  table: readonly (readonly Choice[])[],
  [narrow, wide]: readonly [number, number],
  most: number,
): Steps<readonly Assignment[]> {
  if (narrow === wide) return [];
  const budget = yield* Budget.of(table.map((choices) => [choices[narrow]!, choices[wide]!]));
  return [allot(budget, most).map((c) => (c === 0 ? narrow : wide))];
}

function sizesOf(
  { units, otherBytes }: Choices,
  assignment: Assignment,
): { readonly bits: number; readonly bytes: number } {
  const weights = sumOf(units, (unit) => unit.weights);
  return {
    bits: round(sumOf(units, ({ bits }, u) => bits[assignment[u]!]!) / weights),
    bytes: otherBytes + sumOf(units, ({ bytes }, u) => bytes[assignment[u]!]!),
  };
}

function sumOf<T>(list: readonly T[], part: (one: T, index: number) => number): number {
  return list.reduce((sum, one, index) => sum + part(one, index), 0);
}

/** Six digits: what is behind them depends on the processor. */
function round(value: number): number {
  return Number(value.toPrecision(6));
}
