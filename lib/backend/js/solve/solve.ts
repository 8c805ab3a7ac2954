import { finish, type GroupStats } from './finish.js';
import { Group, type SolveOptions, type State } from './group.js';
import { type Fitted, type Known, know, normalize } from './lanes.js';
import { toRange } from './range.js';
import type { LaneSolver } from './starts.js';

/**
 * A solver, as native/kernels/solve/solve.h says: how it moves a group's state, step by step, from its start or its starts.
 * One that moves the scale calls `scaleWeights`.
 */
export interface Steps {
  /** Most steps from a start. */
  readonly iterations: number;
  /** Moves the group; whether another step may move it further. */
  readonly step: (group: Group, iteration: number) => boolean;
  /** Left out: the range is the only start. Of several the one that ends with the least objective is kept. */
  readonly starts?: {
    readonly count: number;
    readonly start: (group: Group, index: number) => void;
    readonly objective: (group: Group) => number;
  };
}

/** How a solver is made of its options. */
export type MakeSolver = (options: SolveOptions) => Steps | LaneSolver;

/** Solves groups of one size, one at a time, keeping the scratch that it needs. */
export class GroupSolver {
  readonly group: Group;
  readonly #options: SolveOptions;
  readonly #solver: Steps | LaneSolver;
  readonly #known: Known = { count: 0, x: 0, xx: 0 };
  readonly #fitted: Fitted = { s: 1, zero: 0, scale: 1, invScale: 1, cost: 0 };

  constructor(size: number, codesLength: number, options: SolveOptions, solver: MakeSolver) {
    this.group = new Group(size, codesLength);
    this.#options = options;
    this.#solver = solver(options);
  }

  /** Solves the group, whose weights the caller has written; and their importance, if they have one. */
  solve(stats: GroupStats, hasImportance: boolean): void {
    const { group } = this;
    group.measure();
    if (hasImportance) group.weigh();
    if ('solve' in this.#solver) this.#fit(this.#solver, stats);
    else this.#step(this.#solver, stats);
    finish(group, this.#options, stats);
  }

  #fit(solver: LaneSolver, stats: GroupStats): void {
    const { group } = this;
    toRange(group, this.#options);
    const { invScale, scale, zero } = group;
    normalize(group);
    know(group, this.#known);
    const steps = solver.solve({ group, known: this.#known, range: { invScale, scale, zero } }, this.#fitted);
    if (steps > stats.iterations) stats.iterations = steps;
    group.invScale = this.#fitted.invScale;
    group.scale = this.#fitted.scale;
    group.zero = this.#fitted.zero;
    group.scaleWeights();
  }

  #step(steps: Steps, stats: GroupStats): void {
    const { group } = this;
    const { starts } = steps;
    if (starts === undefined) {
      toRange(group, this.#options);
      this.#iterate(steps, stats);
    } else {
      let best: (State & { readonly objective: number }) | undefined;
      for (let index = 0; index < starts.count; index++) {
        starts.start(group, index);
        this.#iterate(steps, stats);
        const objective = starts.objective(group);
        const { invScale, scale, zero } = group;
        if (best === undefined || objective < best.objective) best = { invScale, scale, zero, objective };
      }
      group.invScale = best!.invScale;
      group.scale = best!.scale;
      group.zero = best!.zero;
      group.scaleWeights();
    }
  }

  #iterate({ iterations, step }: Steps, stats: GroupStats): void {
    this.group.scaleWeights();
    let iteration = 0;
    for (let moving = true; moving && iteration < iterations; iteration++) moving = step(this.group, iteration);
    if (iteration > stats.iterations) stats.iterations = iteration;
  }
}
