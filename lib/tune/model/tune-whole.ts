import { moduleOfGgml } from '../../calibrate/ggml-names.js';
import type { Machine } from '../../compute/run.js';
import { geometryOf } from '../../matrix/geometry.js';
import type { ResolvedTune } from '../../models/tuning/option.js';
import type { BlockSource } from '../../runtime/source/block-source.js';
import type { PlannedLayer } from '../../schemes/scheme.js';
import { type StoredAsOf, storedScales } from '../grouped.js';
import type { TuneState } from '../state.js';
import { drawing, type TextPlace } from '../tune-block.js';
import type { Batch } from './gradient.js';
import type { CodedLayer } from './scales.js';
import { tuneScales } from './tune-scales.js';

/** How far the first step goes: of factors of scales, and of zeros in codes. */
const RATE = 4e-3;

/** What the whole model is tuned with, when all blocks are done. */
export interface WholeRun {
  readonly machine: Machine;
  readonly tune: ResolvedTune;
  readonly seed: number;
  readonly storedAsOf: StoredAsOf;
  /** Texts, and where they lie in streams. */
  readonly ids: readonly Uint32Array[];
  readonly places: readonly TextPlace[];
  /** The first so many are trained on. */
  readonly trained: number;
  readonly onStep: (done: number) => void;
}

const moduleOf = ({ site }: PlannedLayer) => moduleOfGgml(site.name);

/**
 * Moves scales and zeros of all layers of a state whose blocks are done, and puts what comes of it into the state.
 *
 * @throws {HqqError} as `tuneScales`
 */
export async function tuneWhole(
  source: BlockSource,
  layers: readonly PlannedLayer[],
  state: TuneState,
  { machine, tune, seed, storedAsOf, ids, places, trained, onStep }: WholeRun,
): Promise<void> {
  const { signal } = machine;
  const planned = new Map(layers.map((layer) => [layer.site.weight.name, layer]));
  const blocks: CodedLayer[][] = [];
  const finish = new Map<string, (scale: Float32Array, zero: Float32Array) => ReturnType<typeof storedScales>>();
  for (const { layers: records } of state.blocks) {
    const own: CodedLayer[] = [];
    for (const { weight } of records) {
      const layer = planned.get(weight)!;
      const { config } = layer.form;
      const chosen = (await state.chosen(weight, true))!;
      const { rows, cols } = geometryOf(layer.site.shape, config);
      const storedAs = storedAsOf(layer, chosen);
      const store = (scale: Float32Array, zero: Float32Array) =>
        storedScales(scale.slice(), zero.slice(), config, storedAs, machine);
      finish.set(weight, store);
      own.push({
        ...{ module: moduleOf(layer), rows, cols, axis: config.axis, movesZero: config.zeroPoint === 'float' },
        ...{ scale: chosen.scale, zero: chosen.zero },
        codes: async () => (await state.chosen(weight, true))!.codes,
        stored: async (scale, zero) => (await store(scale, zero)).stored,
      });
    }
    blocks.push(own);
  }
  const { hiddenSize } = source.config;
  const floats = await state.openStream('floats', source.count, hiddenSize);
  try {
    const batchOf = async (texts: readonly TextPlace[]): Promise<Batch> => {
      const rows = texts.reduce((sum, text) => sum + text.rows, 0);
      const [input, wanted] = [new Float32Array(rows * hiddenSize), new Float32Array(rows * hiddenSize)];
      let at = 0;
      for (const text of texts) {
        input.set(await source.embed(ids[places.indexOf(text)]!, { signal }), at);
        await floats.read(text.first, wanted.subarray(at, at + text.rows * hiddenSize), signal);
        at += text.rows * hiddenSize;
      }
      return { lengths: texts.map(({ rows: length }) => length), input, wanted };
    };
    const draw = drawing(places.slice(0, trained), tune.batch, seed);
    const held = places.slice(trained);
    const texts = {
      next: () => batchOf(draw()),
      async *held() {
        for (let i = 0; i < held.length; i += tune.batch) yield batchOf(held.slice(i, i + tune.batch));
      },
    };
    const { backend, threads } = machine;
    const run = { backend, threads, signal, steps: tune.model, rate: RATE, onStep };
    const { before, after, layers: moved } = await tuneScales(source, blocks, texts, run);
    const kept = new Map<string, { readonly scale: Float32Array; readonly zero: Float32Array }>();
    for (const { layers: records } of moved ? state.blocks : [])
      for (const { weight } of records) {
        const { scale, zero } = moved!.get(moduleOf(planned.get(weight)!))!;
        kept.set(weight, await finish.get(weight)!(scale, zero));
      }
    await state.keepModel(kept, { steps: tune.model, before, after });
  } finally {
    await floats.close();
  }
}
