import { finish, type GroupStats } from './finish.js';
import { Group, type SolveOptions, type State } from './group.js';
import { toRange } from './range.js';

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

/** Solves groups of one size, one at a time, keeping the scratch that it needs. */
export class GroupSolver {
  readonly group: Group;
  readonly #options: SolveOptions;
  readonly #steps: Steps;

  constructor(size: number, codesLength: number, options: SolveOptions, solver: (options: SolveOptions) => Steps) {
    this.group = new Group(size, codesLength);
    this.#options = options;
    this.#steps = solver(options);
  }

  /** Solves the group, whose weights the caller has written; and their importance, if they have one. */
  solve(stats: GroupStats, hasImportance: boolean): void {
    const { group } = this;
    const { starts } = this.#steps;
    group.measure();
    if (hasImportance) group.weigh();
    if (starts === undefined) {
      toRange(group, this.#options);
      this.#iterate(stats);
    } else {
      let best: (State & { readonly objective: number }) | undefined;
      for (let index = 0; index < starts.count; index++) {
        starts.start(group, index);
        this.#iterate(stats);
        const objective = starts.objective(group);
        const { invScale, scale, zero } = group;
        if (best === undefined || objective < best.objective) best = { invScale, scale, zero, objective };
      }
      group.invScale = best!.invScale;
      group.scale = best!.scale;
      group.zero = best!.zero;
      group.scaleWeights();
    }
    finish(group, this.#options, stats);
  }

  #iterate(stats: GroupStats): void {
    const { iterations, step } = this.#steps;
    this.group.scaleWeights();
    let iteration = 0;
    for (let moving = true; moving && iteration < iterations; iteration++) moving = step(this.group, iteration);
    if (iteration > stats.iterations) stats.iterations = iteration;
  }
}
