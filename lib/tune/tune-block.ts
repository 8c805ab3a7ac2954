import type { Machine } from '../compute/run.js';
import { inTurns, type Steps, whenAllEnd } from '../files/event-loop.js';
import type { ResolvedTune } from '../models/tuning/option.js';
import { Plan, type PreparedPlan } from '../runtime/blocks/plan.js';
import { randomNumbers } from '../runtime/text/sampling.js';
import type { TunedLayer } from './layer.js';
import type { TunedBlock } from './source.js';
import type { Stream } from './stream.js';
import { copyStep } from './tape/rules.js';
import type { Tape } from './tape/tape.js';

/** Where a text lies in a stream. */
export interface TextPlace {
  readonly first: number;
  readonly rows: number;
}

/** What a block is tuned on. */
export interface BlockData {
  readonly texts: readonly TextPlace[];
  readonly width: number;
  /** What goes into it: of the quantized blocks before it. */
  readonly input: Stream;
  /** What is to come out: of the blocks of floats. */
  readonly target: Stream;
  /** Rows at the beginning of each text that do not count. */
  readonly uncounted: number;
}

/**
 * Tunes a block: steps against the sign of the gradient of its squared error, on texts that are drawn.
 *
 * @param onStep Called after each step.
 */
export async function tuneBlock(
  block: TunedBlock,
  layers: readonly TunedLayer[],
  { texts, width, input, target, uncounted }: BlockData,
  { steps, batch, rate }: ResolvedTune,
  seed: number,
  machine: Machine,
  onStep: () => void,
): Promise<void> {
  const { signal } = machine;
  const draw = drawing(texts, batch, seed);
  const weights = new Map(layers.map(({ module, values }) => [module, values]));
  const tapes = new Map<
    string,
    { readonly tape: Tape; readonly wanted: Float32Array; readonly compare: PreparedPlan }
  >();
  for (let step = 0; step < steps; step++) {
    const own = draw();
    const lengths = own.map(({ rows }) => rows);
    const key = lengths.join();
    let made = tapes.get(key);
    if (made === undefined) {
      const tape = block.record({ lengths, weights, ofInput: false });
      tapes.clear(); // texts are of one length, but for a last one: two tapes would be twice the memory
      const wanted = new Float32Array(tape.hidden.length);
      tapes.set(key, (made = { tape, wanted, compare: comparison(tape, wanted, machine) }));
    }
    const { tape, wanted, compare } = made;
    await readTexts(input, own, tape.hidden, width, signal);
    await whenAllEnd([tape.forward({ signal }), readTexts(target, own, wanted, width, signal)]);
    await compare.run({ signal });
    leaveOutFirst(tape.gradient, lengths, { width, uncounted });
    await tape.backward({ signal });
    const size = rate * (1 - step / steps);
    const reached = layers.filter(({ module }) => tape.isReached(module));
    const steppings = reached.map((layer) => {
      return layer.step(tape.weightGradients.get(layer.module)!, size, machine);
    });
    await whenAllEnd(steppings);
    onStep();
  }
}

/** Texts one after the other. */
async function readTexts(
  from: Stream,
  texts: readonly TextPlace[],
  into: Float32Array,
  width: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  let row = 0;
  for (const { first, rows } of texts) {
    await from.read(first, into.subarray(row * width, (row + rows) * width), signal);
    row += rows;
  }
}

/** The gradient of half the squared error: what came out less what was to. */
function comparison({ hidden, gradient }: Tape, wanted: Float32Array, { backend, threads }: Machine): PreparedPlan {
  const plan = new Plan(threads);
  plan.add(hidden.length, (most) => [
    copyStep(wanted, gradient, most),
    { operation: 'scale', args: { factor: -1, softcap: 0, x: gradient, threads: most } },
    { operation: 'add', args: { x: hidden, to: gradient, threads: most } },
  ]);
  return plan.prepare(backend);
}

/** Rows that do not count have no gradient. */
function leaveOutFirst(
  gradient: Float32Array,
  lengths: readonly number[],
  { width, uncounted }: Pick<BlockData, 'width' | 'uncounted'>,
): void {
  let row = 0;
  for (const rows of lengths) {
    gradient.fill(0, row * width, (row + uncounted) * width);
    row += rows;
  }
}

/** Draws texts, each once before any comes again: the same ones for the same seed. */
export function drawing(texts: readonly TextPlace[], batch: number, seed: number): () => TextPlace[] {
  const random = randomNumbers(seed);
  let left: TextPlace[] = [];
  const one = (): TextPlace => {
    if (left.length === 0) left = [...texts];
    const at = Math.floor(random() * left.length);
    const [text] = left.splice(at, 1);
    return text!;
  };
  return () => Array.from({ length: Math.min(batch, texts.length) }, one);
}

/** The mean squared error of a block on texts. */
export async function errorOf(
  block: TunedBlock,
  { texts, width, input, target, uncounted }: BlockData,
  signal?: AbortSignal,
): Promise<number> {
  let sum = 0;
  let count = 0;
  for (const { first, rows } of texts) {
    const [x, wanted] = [new Float32Array(rows * width), new Float32Array(rows * width)];
    await input.read(first, x, signal);
    await target.read(first, wanted, signal);
    await block.forward([x], { signal });
    sum += await inTurns(squares(x, wanted, { width, uncounted }), signal);
    count += (rows - uncounted) * width;
  }
  return sum / count;
}

function* squares(
  x: Float32Array,
  wanted: Float32Array,
  { width, uncounted }: Pick<BlockData, 'width' | 'uncounted'>,
): Steps<number> {
  let sum = 0;
  for (let from = uncounted * width; from < x.length; from += width) {
    for (let i = from; i < from + width; i++) sum += (x[i]! - wanted[i]!) ** 2;
    if ((from / width) % 64 === 0) yield;
  }
  return sum;
}
