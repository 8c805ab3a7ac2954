import { hqqParameters } from './hqq.js';
import type { SolverRow } from './solver.js';

/** The one list of solvers, in the order of native/kernels/solve/solvers.h. */
const ROWS = [
  { name: 'hqq', help: 'moved to a fixed point', optimizes: true, parameters: hqqParameters },
  {
    name: 'minmax',
    help: 'left where they start',
    optimizes: false,
    parameters: (): Float32Array => new Float32Array(0),
  },
] as const satisfies readonly SolverRow[];

/** One of `SOLVERS`. */
export type Solver = (typeof ROWS)[number]['name'];

/** How scale and zero are found. `hqq` is the reference's solver; `minmax` keeps the start (round to nearest). */
export const SOLVERS: readonly Solver[] = ROWS.map(({ name }) => name);

/** All that is known of a solver. Its place in the list is what backends are told. */
export function solverNamed(name: Solver): SolverRow & { readonly id: number } {
  const id = SOLVERS.indexOf(name);
  return { ...ROWS[id]!, id };
}

/** What `--solver` does, in a line. */
export const SOLVERS_HELP = ROWS.map(({ name, help }) => `${name}: ${help}`).join('; ');

/** Which zeros a group may have, in the order of their ids: see `Constants` of binding.d.ts. */
export const ZERO_KINDS = ['float', 'roundedStart'] as const;
