import type { Backend } from '../../../binding.js';
import type { BlockSource } from '../../runtime/source/block-source.js';
import { Room } from '../tape/room.js';
import type { Floats } from '../tape/spans.js';
import { type Batch, modelDivergence } from './gradient.js';
import { type CodedLayer, MovingScales } from './scales.js';

/** How scales and zeros of a model are tuned together. */
export interface ScalesRun {
  readonly backend: Backend;
  readonly threads: number;
  readonly signal: AbortSignal | undefined;
  readonly steps: number;
  /** How far the first step goes: of factors of scales, and of zeros in codes. It falls to 0 along a line. */
  readonly rate: number;
  /** Called after each step, and before the first. */
  readonly onStep: (done: number) => void;
}

/** What a model is tuned on. */
export interface ScalesTexts {
  /** Those of a step: called once for each. */
  next(): Promise<Batch>;
  /** Texts that are not trained on, by which the better of before and after is kept. */
  held(): AsyncIterable<Batch>;
}

/** Scales and zeros by module, not yet as they will be stored, and the mean divergence on held texts, in nats a token. */
export interface TunedScales {
  readonly before: number;
  readonly after: number;
  /** Undefined where what was before is no worse. */
  readonly layers: ReadonlyMap<string, { readonly scale: Floats; readonly zero: Floats }> | undefined;
}

/**
 * Moves the scales and zeros of all layers together, so that the probabilities of the whole model are those of the model of floats; codes
 * stay as they are.
 *
 * @param source The model of floats.
 * @param blocks Layers on codes, of each block; all others are the source's.
 * @throws {HqqError} as `BlockSource.block`; the signal's reason
 */
export async function tuneScales(
  source: BlockSource,
  blocks: readonly (readonly CodedLayer[])[],
  texts: ScalesTexts,
  run: ScalesRun,
): Promise<TunedScales> {
  const { signal, steps, rate, onStep } = run;
  const moving = blocks.map((layers) => layers.map((layer) => new MovingScales(layer)));
  const [room, weights] = [new Room(), new Room()];
  const weightsOf = async (index: number) => {
    weights.free();
    const all = new Map<string, Floats>();
    for (const scales of moving[index]!) {
      const { module, rows, cols } = scales.layer;
      const out = weights.take(rows * cols);
      await scales.weights(out, run);
      all.set(module, out);
    }
    return all;
  };
  const onHeld = async () => {
    let [sum, count] = [0, 0];
    for await (const batch of texts.held()) {
      const tokens = batch.lengths.reduce((total, length) => total + length - 1, 0);
      sum += tokens * (await modelDivergence(source, batch, { weightsOf }, { signal, room }));
      count += tokens;
    }
    return sum / count;
  };
  const before = await onHeld();
  for (let step = 0; step < steps; step++) {
    onStep(step);
    const size = rate * (1 - step / steps);
    const take = async (index: number, gradients: ReadonlyMap<string, Floats>) => {
      for (const scales of moving[index]!) await scales.step(gradients.get(scales.layer.module)!, size, run);
    };
    await modelDivergence(source, await texts.next(), { weightsOf, take }, { signal, room });
  }
  onStep(steps);
  const after = await onHeld();
  const layers = new Map(moving.flat().map((scales) => [scales.layer.module, scales.moved] as const));
  return { before, after, layers: after < before ? layers : undefined };
}
