import type { Plan } from '../../runtime/blocks/plan.js';
import type { Floats } from './spans.js';

/** What gradients are wanted of. */
export interface Wanted {
  /** What the plan is given. Its gradient is wanted where there is such an array. */
  readonly input?: Floats | undefined;
  /** What it is for: the gradient of this is there when the plan back begins. */
  readonly output: Floats;
  /** Where the gradients of weights of linear layers are to be written. */
  readonly weights: ReadonlyMap<Floats, Floats>;
}

/** A plan, and the plan that goes back through it. */
export interface Derivative {
  /** The plan, and copies of what it writes over, as far as they are needed. */
  readonly forward: Plan;
  /** From the gradient of the output to all others. It may run once for each run of `forward`, and its gradients are all it writes. */
  readonly backward: Plan;
  /** The gradient of the output; of the same shape and place as that. */
  readonly outputGradient: Floats;
  /** The gradient of the input after a run back; undefined: it was not wanted. Where input and output are one array, so are these. */
  readonly inputGradient: Floats | undefined;
  /** Whether the last run of `forward` computed with weights: those of experts that no row went through are left out. */
  isReached(weights: Floats): boolean;
}
