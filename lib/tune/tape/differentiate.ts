import type { Step } from '../../../binding.js';
import { provide } from '../../backend/js/backend.js';
import { ENCODER_GRADIENTS } from '../../backend/js/gradients/encoder-layers.js';
import { GRADIENTS } from '../../backend/js/gradients/layers.js';
import { denseLinearGradient } from '../../backend/js/gradients/linear.js';
import { HqqError } from '../../messages/errors.js';
import { ExpertMlp } from '../../runtime/blocks/experts.js';
import { type Decision, Plan } from '../../runtime/blocks/plan.js';
import type { Derivative, Wanted } from './derivative.js';
import { RoutedMlp } from './experts.js';
import type { Room } from './room.js';
import { addGradient, copyStep } from './rules.js';
import { type Floats, overlap, Spans } from './spans.js';
import { checkDifferentiable, type DifferentiableStep, type Uses, usesOf } from './uses.js';

provide({ ...GRADIENTS, ...ENCODER_GRADIENTS, denseLinearGradient });

/** A step, or experts, and what is known of it. */
interface Entry {
  readonly step: DifferentiableStep | RoutedMlp;
  readonly uses: Uses;
  /** Which of the arrays that it reads depend on what gradients are wanted of. */
  readonly wanted: ReadonlySet<Floats>;
  /** Whether what it writes does. */
  readonly depends: boolean;
  /** Steps that go before and after it, to keep what it is given and gives. */
  readonly before: Step[];
  readonly after: Step[];
}

/**
 * The derivative of a plan: for each step, from the last to the first, that of the operation itself. So whatever a plan computes has a
 * gradient without being described again. Each array has a shadow, in which its gradient lies at the same place; an array that is written
 * over begins anew with none. All of them are of the room, but for those of experts, whose rows are other ones in each run.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for steps that have no gradient; `ERR_OUT_OF_MEMORY`
 */
export function differentiate(plan: Plan, { input, output, weights }: Wanted, room: Room): Derivative {
  const { threads } = plan;
  const entries = readParts(plan, input, weights);
  const backward = new Plan(threads);
  const shadows = new Shadows(backward, room);
  const outputGradient = shadows.begin(output);
  for (const [at, { step, uses, wanted, depends, before, after }] of [...entries.entries()].reverse()) {
    if (!depends || isOverwritten(step, shadows)) continue;
    const writtenFrom = (from: number, array: Floats) =>
      entries.slice(from).some((later) => overlap(later.uses.writes, array));
    const kept = (array: Floats, where: Step[]) => {
      const copy = room.take(array.length);
      where.push(copyStep(array, copy, threads));
      return copy;
    };
    const gradient = shadows.sum(uses.writes);
    const wants = (array: Floats) => wanted.has(array);
    if (step instanceof RoutedMlp) {
      backward.decide(step.gradient({ gradient, wants, sum: (array) => shadows.sum(array) }));
    } else {
      addGradient(step, {
        ...{ gradient, wants },
        before: (array) => (writtenFrom(at, array) ? kept(array, before) : array),
        after: (array) => (writtenFrom(at + 1, array) ? kept(array, after) : array),
        target: (array) => shadows.target(array),
        sum: (array) => shadows.sum(array),
        into: (array, write) => shadows.into(array, write),
        ofWeights: (array) => weights.get(array),
        add: (work, make) => backward.add(work, (most) => [make(most)]),
      });
    }
    const turned = uses.reads.some((array) => wanted.has(array) && overlap(array, uses.writes));
    if (!turned) shadows.end(uses.writes);
  }
  const forward = new Plan(threads);
  for (const { step, before, after } of entries) {
    if (step instanceof RoutedMlp) forward.decide(step);
    else forward.add(0, () => [...before, step, ...after]);
  }
  const routed = entries.flatMap(({ step }) => (step instanceof RoutedMlp ? [step] : []));
  const isReached = (array: Floats) => routed.every((step) => step.isReached(array));
  return { forward, backward, outputGradient, inputGradient: input && shadows.sum(input), isReached };
}

function readParts(plan: Plan, input: Floats | undefined, weights: Wanted['weights']): Entry[] {
  const depending = new Spans();
  if (input) depending.add(input);
  const steps = plan.parts.flatMap((part): readonly Entry['step'][] =>
    isDecision(part) ? [routedOf(part)] : part.map(checkDifferentiable),
  );
  const seen = new Set(steps.flatMap((step) => (step instanceof RoutedMlp ? [] : (weightsOf(step) ?? []))));
  // Experts have the other weights: which of them are used is known when they run.
  const ofExperts = new Map([...weights].filter(([array]) => !seen.has(array)));
  return steps.map((step): Entry => {
    const isRouted = step instanceof RoutedMlp;
    if (isRouted) step.want(ofExperts);
    const uses = isRouted ? step.uses : usesOf(step);
    const wanted = new Set(uses.reads.filter((array) => depending.has(array)));
    const own = isRouted ? undefined : weightsOf(step);
    const depends = wanted.size > 0 || (isRouted ? ofExperts.size > 0 : own !== undefined && weights.has(own));
    if (depends) depending.add(uses.writes);
    else depending.remove(uses.writes);
    return { step, uses, wanted, depends, before: [], after: [] };
  });
}

/** Attention that writes to its cache alone, what else it gives is written over: that has no gradient, and its own none either. */
const isOverwritten = (step: Entry['step'], shadows: Shadows): boolean =>
  !(step instanceof RoutedMlp) && step.operation === 'attention' && !shadows.has(step.args.out);

const isDecision = (part: readonly Step[] | Decision): part is Decision => 'run' in part;

const weightsOf = ({ operation, args }: DifferentiableStep): Floats | undefined =>
  operation === 'denseLinear' ? args.weights : undefined;

function routedOf(decision: Decision): RoutedMlp {
  if (decision instanceof ExpertMlp) return new RoutedMlp(decision, differentiate);
  const message = 'Expected what has a gradient, got weights that stay in their file.';
  throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
}

/** Gradients of arrays, as far as the plan back has come. */
class Shadows {
  readonly #plan: Plan;
  readonly #room: Room;
  readonly #of = new Map<ArrayBufferLike, Floats>();
  /** What is a gradient, and not left from before. */
  readonly #known = new Spans();

  constructor(plan: Plan, room: Room) {
    this.#plan = plan;
    this.#room = room;
  }

  /** What the plan begins with. */
  begin(array: Floats): Floats {
    const shadow = this.#at(array);
    this.#known.add(shadow);
    return shadow;
  }

  /** It is no gradient any more. */
  end(array: Floats): void {
    this.#known.remove(this.#at(array));
  }

  /** Whether anything is known of it. */
  has(array: Floats): boolean {
    return this.#known.has(this.#at(array));
  }

  target(array: Floats): { readonly to: Floats; readonly adds: boolean } {
    const adds = this.#known.has(this.#at(array));
    return { to: adds ? this.sum(array) : this.begin(array), adds };
  }

  sum(array: Floats): Floats {
    const shadow = this.#at(array);
    for (const x of this.#known.missing(shadow))
      this.#plan.add(x.length / 4, (threads) => [{ operation: 'clear', args: { x, threads } }]);
    this.#known.add(shadow);
    return shadow;
  }

  into(array: Floats, write: (to: Floats) => void): void {
    const { to, adds } = this.target(array);
    const x = adds ? this.#room.take(to.length) : to;
    write(x);
    if (adds) this.#plan.add(to.length, (threads) => [{ operation: 'add', args: { x, to, threads } }]);
  }

  /** The part of its buffer's shadow that lies as the array does. */
  #at({ buffer, byteOffset, length }: Floats): Floats {
    const { BYTES_PER_ELEMENT } = Float32Array;
    let shadow = this.#of.get(buffer);
    if (shadow === undefined) this.#of.set(buffer, (shadow = this.#room.take(buffer.byteLength / BYTES_PER_ELEMENT)));
    return shadow.subarray(byteOffset / BYTES_PER_ELEMENT, byteOffset / BYTES_PER_ELEMENT + length);
  }
}
