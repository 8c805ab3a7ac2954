import { Plan, type PlanRun } from '../../runtime/blocks/plan.js';
import type { OpenHead } from '../../runtime/source/open-head.js';
import { differentiate } from './differentiate.js';
import type { Room } from './room.js';
import type { Floats } from './spans.js';

/** What follows the blocks, forwards and back: as `Tape`, for rows of any texts. */
export interface HeadTape {
  /** `[rows, hiddenSize]`: what came out of the last block, before `forward`. */
  readonly hidden: Floats;
  /** `[rows, vocabSize]`: after it. */
  readonly logits: Floats;
  /** `[rows, vocabSize]`: the gradient of the logits, by the caller, before `backward`; after it, anything. */
  readonly logitsGradient: Floats;
  /** `[rows, hiddenSize]`: the gradient of `hidden`, after it. */
  readonly gradient: Floats;
  /** Computes logits. @throws the signal's reason */
  forward(run: PlanRun): Promise<void>;
  /** Goes back through what `forward` did last. @throws the signal's reason */
  backward(run: PlanRun): Promise<void>;
}

/** @throws {HqqError} as `recordBlock` */
export function recordHead({ inside }: OpenHead, rows: number, room: Room): HeadTape {
  const { head, config, machine } = inside;
  const { hiddenSize, vocabSize } = config;
  const [hidden, normed] = [room.take(rows * hiddenSize), room.take(rows * hiddenSize)];
  const logits = room.take(rows * vocabSize);
  const plan = new Plan(machine.threads);
  head.addTo(plan, hidden, rows, normed, logits);
  const derivative = differentiate(plan, { input: hidden, output: logits, weights: new Map() }, room);
  const [there, back] = [derivative.forward.prepare(machine.backend), derivative.backward.prepare(machine.backend)];
  const { outputGradient: logitsGradient, inputGradient } = derivative;
  return {
    ...{ hidden, logits, logitsGradient, gradient: inputGradient! },
    forward: (run) => there.run(run),
    backward: (run) => back.run(run),
  };
}
