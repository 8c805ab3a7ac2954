import { activeBackend } from '../backend/index.js';
import type { CollectProgress } from '../calibrate/collect.js';
import { moduleOfGgml } from '../calibrate/ggml-names.js';
import { Squares } from '../calibrate/squares.js';
import { gains } from '../calibrate/weighing/weigh.js';
import { type Machine, resolveThreads } from '../compute/run.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import type { ResolvedTune } from '../models/tuning/option.js';
import type { PlannedLayer, Scheme } from '../schemes/scheme.js';
import { beginGrouped, type StoredAsOf } from './grouped.js';
import { TunedLayer } from './layer.js';
import { tuneWhole } from './model/tune-whole.js';
import type { LayerOutcome } from './records.js';
import { openTunedSource, type TunedBlock, type TunedSource } from './source.js';
import type { TuneState } from './state.js';
import type { Stream } from './stream.js';
import { type TuningTexts, tuningTexts } from './texts.js';
import { type BlockData, errorOf, type TextPlace, tuneBlock } from './tune-block.js';

/** The table that texts are looked up in. */
const EMBEDDING = 'model.embed_tokens';

/** How far tuning is. */
export interface TuneStand {
  /** Steps of all blocks that this run has to do. */
  readonly done: number;
  readonly total: number;
  /** The block that is being tuned, from 0, and all. */
  readonly block: number;
  readonly blocks: number;
}

/** How a model is tuned. */
export interface TuneRun {
  readonly tune: ResolvedTune;
  readonly seed: number;
  /** A folder of an adapter that is merged into the model. */
  readonly adapter: string | undefined;
  readonly threads: number | undefined;
  readonly signal: AbortSignal | undefined;
  /** What the errors of inputs count, by name of the layer; `'own'`: as the text that is tuned with has it; undefined: all alike. */
  readonly importance: ReadonlyMap<string, Float32Array> | 'own' | undefined;
  /** How scales and zeros of a layer are stored that has these, from the solver or rounded as they are stored. */
  readonly storedAsOf: StoredAsOf;
  /** Where layers are stored as blocks. */
  readonly blocks: Scheme['blockTuning'];
  /** Layers that are quantized, but cannot be tuned as they will be stored. */
  readonly solverOnly: readonly PlannedLayer[];
  readonly onText: ((progress: CollectProgress) => void) | undefined;
  readonly onProgress: ((stand: TuneStand) => void) | undefined;
}

/**
 * Tunes the layers of a model, block by block. What comes of it is in the state, from which it goes on where a run was stopped.
 *
 * @returns layers that are in no block, or lie in it otherwise: they are left to the solver
 * @throws {HqqError} as `collectImportance`
 */
export async function tuneModel(
  path: string,
  layers: readonly PlannedLayer[],
  state: TuneState,
  run: TuneRun,
): Promise<readonly PlannedLayer[]> {
  const { threads, signal, tune, seed, adapter } = run;
  const source = await openTunedSource(path, { adapter, threads, signal });
  try {
    let texts = await state.texts();
    if (texts === undefined) {
      texts = await tuningTexts(source, tune, { adapter, seed, threads, signal, onProgress: run.onText });
      await state.keepTexts(texts);
    }
    const tuner = new Tuner(source, texts, state, run);
    const waiting = new Map([...layers, ...run.solverOnly].map((layer) => [moduleOfGgml(layer.site.name), layer]));
    for (let index = state.blocks.length; index < source.count; index++) await tuner.block(index, waiting);
    await state.keepModelOf(tune.model);
    if (tune.model > 0 && state.model === undefined) await tuner.model(layers);
    const done = new Set(state.blocks.flatMap((block) => block.layers.map(({ weight }) => weight)));
    return layers.filter(({ site }) => !done.has(site.weight.name));
  } finally {
    await source.close();
  }
}

class Tuner {
  readonly #source: TunedSource;
  readonly #state: TuneState;
  readonly #run: TuneRun;
  readonly #machine: Machine;
  readonly #ids: readonly Uint32Array[];
  readonly #places: readonly TextPlace[];
  readonly #trained: number;
  /** Blocks that were done before. */
  readonly #skipped: number;

  constructor(source: TunedSource, { texts, trained }: TuningTexts, state: TuneState, run: TuneRun) {
    this.#source = source;
    this.#state = state;
    this.#run = run;
    this.#machine = { backend: activeBackend(), threads: resolveThreads(run.threads), signal: run.signal };
    this.#ids = texts;
    let first = 0;
    this.#places = texts.map(({ length: rows }) => ({ first: (first += rows) - rows, rows }));
    this.#trained = trained;
    this.#skipped = state.blocks.length;
  }

  async block(index: number, waiting: ReadonlyMap<string, PlannedLayer>): Promise<void> {
    const width = this.#source.config.hiddenSize;
    const streams: Stream[] = [];
    const keep = async (stream: Promise<Stream>) => {
      streams.push(await stream);
      return streams.at(-1)!;
    };
    try {
      if (index === 0) await this.#embed(width, waiting.get(EMBEDDING));
      const floats = await keep(this.#state.openStream('floats', index, width));
      const input = await keep(this.#state.openStream('codes', index, width));
      const target = await keep(this.#state.createStream('floats', index + 1, width));
      const output = await keep(this.#state.createStream('codes', index + 1, width));
      const block = await this.#source.block(index, { signal: this.#run.signal });
      const squares = new Squares();
      await this.#flow(block, floats, target, this.#run.importance === 'own' ? squares : undefined);
      const { outcomes, made, before, after } = await this.#tune(block, waiting, squares.take(), {
        ...{ width, input, target, uncounted: this.#source.uncounted },
      });
      await this.#flow(made, input, output);
      for (const stream of [target, output]) await stream.sync();
      await this.#state.keepBlock(outcomes, { before, after });
    } finally {
      for (const stream of streams) await stream.close();
    }
  }

  /** Scales and zeros of all layers together. */
  async model(layers: readonly PlannedLayer[]): Promise<void> {
    const { tune, storedAsOf, onProgress } = this.#run;
    const total = this.#total;
    const each = this.#source.count;
    await tuneWhole(this.#source.language!, layers, this.#state, {
      ...{ machine: this.#machine, tune, storedAsOf, seed: this.#run.seed },
      ...{ ids: this.#ids, places: this.#places, trained: this.#trained },
      onStep: (done) =>
        onProgress?.({ done: total - (tune.model - done) * each, total, block: each - 1, blocks: each }),
    });
  }

  /** Steps that this run does: one of the whole model is one of each block. */
  get #total(): number {
    const { steps, model } = this.#run.tune;
    return (this.#source.count - this.#skipped) * steps + model * this.#source.count;
  }

  /** What goes into the first block; as it will be stored, where the table of it is stored as blocks. */
  async #embed(width: number, table: PlannedLayer | undefined): Promise<void> {
    const { signal, blocks } = this.#run;
    const floats = await this.#state.createStream('floats', 0, width);
    const codes = await this.#state.createStream('codes', 0, width);
    try {
      for (const [i, ids] of this.#ids.entries()) {
        const { first } = this.#places[i]!;
        const rows = await this.#source.embed(ids, { signal });
        await floats.write(first, rows);
        await codes.write(first, table && blocks ? await this.#solve(table, rows) : rows);
      }
    } finally {
      await floats.close();
      await codes.close();
    }
  }

  /** All texts through a block, as many at once as a step has. */
  async #flow(block: TunedBlock, from: Stream, to: Stream, squares?: Squares): Promise<void> {
    const { signal, tune } = this.#run;
    const width = this.#source.config.hiddenSize;
    for (let at = 0; at < this.#places.length; at += tune.batch) {
      const places = this.#places.slice(at, at + tune.batch);
      const texts = places.map(({ rows }) => new Float32Array(rows * width));
      for (const [i, { first }] of places.entries()) await from.read(first, texts[i]!, signal);
      await block.forward(texts, { signal, ...(squares && { tap: squares.add }) });
      for (const [i, { first }] of places.entries()) await to.write(first, texts[i]!);
    }
  }

  async #tune(
    block: TunedBlock,
    waiting: ReadonlyMap<string, PlannedLayer>,
    shares: ReadonlyMap<string, Float32Array>,
    streams: Omit<BlockData, 'texts'>,
  ) {
    const machine = this.#machine;
    const { tune, seed, signal, blocks: asBlocks } = this.#run;
    const tuned: TunedLayer[] = [];
    const solved: Record<string, Float32Array> = {};
    const values: Record<string, Float32Array> = {};
    const first = new Map<string, LayerOutcome['chosen']>();
    const importanceOf = new Map<string, Float32Array>();
    const left: LayerOutcome[] = [];
    for (const { module, shape } of block.linears) {
      const layer = waiting.get(module);
      if (layer === undefined || !isShaped(layer, shape)) continue;
      const { site } = layer;
      const floats = await block.weight(module, { threads: machine.threads, signal });
      if (site.stored !== 'out-in') {
        solved[module] = values[module] = await this.#solve(layer, floats);
        continue;
      }
      const importance = this.#importance(layer, shares.get(module));
      if (this.#run.solverOnly.includes(layer)) {
        solved[module] = values[module] = await this.#solve(layer, floats, importance);
        if (importance)
          left.push({ weight: site.weight.name, importance, chosen: undefined, solver: true, reached: true });
        continue;
      }
      if (importance) importanceOf.set(site.weight.name, importance);
      const begun = asBlocks
        ? await asBlocks.begin(layer, floats, importance, machine)
        : await beginGrouped(layer, floats, importance, this.#run.storedAsOf, machine);
      const own = new TunedLayer({ weight: site.weight.name, module }, begun);
      const start = await own.solved(machine);
      solved[module] = start.values;
      // The whole model is tuned on codes that are known, now or in a run after this one.
      first.set(own.weight, start.chosen);
      tuned.push(own);
    }
    // Steps go from the layers that are not tuned as they will be stored.
    const base = await block.replace(values, { signal });
    const held = { ...streams, texts: this.#places.slice(this.#trained) };
    const untuned = await block.replace(solved, { signal });
    if (tuned.length === 0) return { outcomes: left, made: untuned, before: 0, after: 0 };
    const before = await errorOf(untuned, held, signal);
    if (!Number.isFinite(before)) {
      const message = `Expected block ${block.index} of ${plain(this.#source.path)} to give finite numbers`;
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message} with what the solver found, got an error of ${before}.`);
    }
    for (const layer of tuned) await layer.begin(machine);
    let done = (block.index - this.#skipped) * tune.steps;
    const [blocks, total] = [this.#source.count, this.#total];
    const report = () => this.#run.onProgress?.({ done, total, block: block.index, blocks });
    report();
    const trained = { ...streams, texts: this.#places.slice(0, this.#trained) };
    await tuneBlock(base, tuned, trained, tune, seed + (block.index + 1) * 2 ** 32, machine, () => {
      done++;
      report();
    });
    const chosen = new Map<string, LayerOutcome['chosen']>();
    for (const layer of tuned) {
      const finished = await layer.finish(machine);
      chosen.set(layer.weight, finished.chosen);
      values[layer.module] = finished.values;
    }
    const made = await block.replace(values, { signal });
    const after = await errorOf(made, held, signal);
    const better = after < before;
    const outcomes = tuned.map(({ weight, isMoved: reached }): LayerOutcome => {
      const solver = !better || !reached;
      const own = (solver ? first : chosen).get(weight);
      return { weight, importance: importanceOf.get(weight), chosen: own, solver, reached };
    });
    return { outcomes: [...outcomes, ...left], made: better ? made : untuned, before, after };
  }

  /** The numbers of a layer that is not tuned, as it will be stored. */
  async #solve(layer: PlannedLayer, floats: Float32Array, own?: Float32Array): Promise<Float32Array> {
    const { blocks, storedAsOf, importance: of } = this.#run;
    const importance = of === 'own' ? own : of?.get(layer.site.name); // who writes it has no other
    if (blocks) return blocks.solve(layer, floats, importance, this.#machine);
    const begun = await beginGrouped(layer, floats, importance, storedAsOf, this.#machine);
    return (await new TunedLayer({ weight: '', module: '' }, begun).solved(this.#machine)).values;
  }

  #importance({ site, form }: PlannedLayer, own: Float32Array | undefined): Float32Array | undefined {
    const { importance } = this.#run;
    if (importance !== 'own') return importance?.get(site.name);
    return gains(form.config) ? own : undefined;
  }
}

/** Whether a layer of files is one of the block's. */
function isShaped({ site }: PlannedLayer, [rows, cols]: readonly [number, number]): boolean {
  return site.shape[0] === rows && site.shape[1] === cols;
}
