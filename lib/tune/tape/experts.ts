import type { Backend } from '../../../binding.js';
import { yieldIfDue } from '../../files/event-loop.js';
import type { ExpertMlp, Routes } from '../../runtime/blocks/experts.js';
import type { Decision, Plan, PlanRun } from '../../runtime/blocks/plan.js';
import type { Derivative, Wanted } from './derivative.js';
import { Room } from './room.js';
import type { Floats } from './spans.js';
import type { Uses } from './uses.js';

type Differentiate = (plan: Plan, wanted: Wanted, room: Room) => Derivative;

/** What the gradient of experts is made with: see `Turn`. */
interface ExpertTurn {
  /** Of what they wrote. */
  readonly gradient: Floats;
  wants(array: Floats): boolean;
  sum(array: Floats): Floats;
}

/**
 * Experts forwards and back. What the router chooses is taken as it is; what is chosen counts as much as the router says, and that has a
 * gradient. In each run the rows of each expert are others, so the products and their derivative are planned anew, in memory of their own.
 */
export class RoutedMlp implements Decision {
  readonly #mlp: ExpertMlp;
  readonly #differentiate: Differentiate;
  readonly #room = new Room();
  #weights: ReadonlyMap<Floats, Floats> = new Map();
  /** Of the last run. */
  #last: { readonly routes: Routes; readonly derivative: Derivative; readonly used: ReadonlySet<Floats> } | undefined;

  constructor(mlp: ExpertMlp, differentiate: Differentiate) {
    this.#mlp = mlp;
    this.#differentiate = differentiate;
  }

  get uses(): Uses {
    const { mlpIn, change, frame } = this.#mlp;
    return { reads: [mlpIn, frame.logits], writes: change };
  }

  /** @param weights As `Wanted` has them: those of experts. */
  want(weights: ReadonlyMap<Floats, Floats>): void {
    this.#weights = weights;
  }

  /** Whether the last run computed with weights, where they are of these experts. */
  isReached(weights: Floats): boolean {
    return !this.#weights.has(weights) || this.#last?.used.has(weights) === true;
  }

  async run(backend: Backend, run: PlanRun): Promise<void> {
    const { gathered, results } = this.#mlp.frame;
    const routes = await this.#mlp.gather();
    const plan = this.#mlp.planOf(routes);
    this.#room.free();
    const wanted = { input: gathered, output: results, weights: this.#weights };
    const derivative = this.#differentiate(plan, wanted, this.#room);
    this.#last = { routes, derivative, used: weightsIn(plan) };
    await derivative.forward.run(backend, run);
    await this.#mlp.combine(routes);
  }

  /** Goes back through the last run. Weights of experts that no position went through have a gradient of 0. */
  gradient({ gradient, wants, sum }: ExpertTurn): Decision {
    const [ofInput, ofLogits] = this.uses.reads.map((array) => (wants(array) ? sum(array) : undefined));
    return {
      run: async (backend, run) => {
        const { routes, derivative, used } = this.#last!;
        for (const [weights, to] of this.#weights) if (!used.has(weights)) to.fill(0);
        await this.#splitUp(routes, gradient, derivative.outputGradient, ofLogits);
        await derivative.backward.run(backend, run);
        if (ofInput) await this.#scatter(routes, derivative.inputGradient!, ofInput);
      },
    };
  }

  /** From the gradients of the sums of positions to those of what each of their experts gave, and of the router's logits. */
  async #splitUp(
    { experts, places, shares }: Routes,
    gradient: Floats,
    to: Floats,
    ofLogits: Floats | undefined,
  ): Promise<void> {
    const { hiddenSize: width, experts: sizes } = this.#mlp.config;
    const { results, logits } = this.#mlp.frame;
    const { count, chosen, normalized } = sizes!;
    for (let row = 0; row * width < gradient.length; row++) {
      const pulls = new Float64Array(chosen);
      for (let k = 0; k < chosen; k++) {
        const at = places[row * chosen + k]! * width;
        const share = shares[row * chosen + k]!;
        let pull = 0;
        for (let i = 0; i < width; i++) {
          const own = gradient[row * width + i]!;
          pull += own * results[at + i]!;
          to[at + i] = share * own;
        }
        pulls[k] = pull;
      }
      if (ofLogits) {
        const own = {
          logits: logits.subarray(row * count, (row + 1) * count),
          chosen: experts.subarray(row * chosen, (row + 1) * chosen),
          shares: shares.subarray(row * chosen, (row + 1) * chosen),
        };
        addRouterGradient(own, pulls, normalized, ofLogits.subarray(row * count, (row + 1) * count));
      }
      await yieldIfDue();
    }
  }

  /** Adds the gradients of an expert's rows to those of the positions that they are of. */
  async #scatter({ positions }: Routes, from: Floats, to: Floats): Promise<void> {
    const { hiddenSize: width } = this.#mlp.config;
    for (const [place, row] of positions.entries()) {
      for (let i = 0; i < width; i++) to[row * width + i] = to[row * width + i]! + from[place * width + i]!;
      await yieldIfDue();
    }
  }
}

/**
 * The gradient of a position's logits from those of the shares, `pulls`: softmax among those that were chosen, or among all, where `m` is
 * the mean of `pulls` by shares: share * (pull - m) of what was chosen, and -share * m of all others.
 */
function addRouterGradient(
  { logits, chosen, shares }: { readonly logits: Floats; readonly chosen: Int32Array; readonly shares: Float64Array },
  pulls: Float64Array,
  normalized: boolean,
  to: Floats,
): void {
  const mean = pulls.reduce((sum, pull, k) => sum + pull * shares[k]!, 0);
  for (const [k, expert] of chosen.entries()) to[expert] = to[expert]! + shares[k]! * (pulls[k]! - mean);
  if (normalized) return;
  const highest = logits.reduce((most, logit) => Math.max(most, logit), -Infinity);
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - highest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  for (let expert = 0; expert < to.length; expert++)
    if (!chosen.includes(expert)) to[expert] = to[expert]! - (powers[expert]! / total) * mean;
}

function weightsIn(plan: Plan): ReadonlySet<Floats> {
  const used = new Set<Floats>();
  for (const part of plan.parts)
    if (!('run' in part))
      for (const { operation, args } of part) if (operation === 'denseLinear') used.add(args.weights);
  return used;
}
