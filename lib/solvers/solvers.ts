import { hqqParameters } from './hqq.js';
import { jointParameters, leastJointScale } from './joint.js';
import { type SolverRow, ZERO_POINTS } from './solver.js';

/** The one list of solvers, in the order of native/kernels/solve/solvers.h. */
const ROWS = [
  {
    name: 'hqq',
    help: 'zeros moved to a fixed point',
    optimizes: true,
    keepsScale: true,
    zeroPoints: ['float'],
    lpNorm: { default: 0.7, expected: 'in (0, 1]', accepts: (lpNorm) => lpNorm <= 1 },
    parameters: hqqParameters,
  },
  {
    name: 'minmax',
    help: 'left at the range',
    optimizes: false,
    keepsScale: true,
    zeroPoints: ZERO_POINTS,
    parameters: (): Float32Array => new Float32Array(0),
  },
  {
    name: 'joint',
    help: 'both fitted by least squares from several ranges, the best kept',
    optimizes: true,
    keepsScale: false,
    leastScale: leastJointScale,
    zeroPoints: ZERO_POINTS,
    lpNorm: { default: 2, expected: 'in (0, 1] or 2', accepts: (lpNorm) => lpNorm <= 1 || lpNorm === 2 },
    parameters: jointParameters,
  },
] as const satisfies readonly SolverRow[];

/** One of `SOLVERS`. */
export type Solver = (typeof ROWS)[number]['name'];

/**
 * How scale and zero are found. `hqq` is the reference's solver; `minmax` keeps the range (round to nearest); `joint` fits scale and
 * zero together.
 */
export const SOLVERS: readonly Solver[] = ROWS.map(({ name }) => name);

/** All that is known of a solver. Its place in the list is what backends are told. */
export function solverNamed(name: Solver): SolverRow & { readonly id: number } {
  const id = SOLVERS.indexOf(name);
  return { ...ROWS[id]!, id };
}

/** What `--solver` does, in a line. */
export const SOLVERS_HELP = ROWS.map(({ name, help }) => `${name}: ${help}`).join('; ');

/** Which zeros a group may have, in the order of their ids: see `Constants` of binding.d.ts. */
export const ZERO_KINDS = ['float', 'roundedStart', 'integer', 'symmetric'] as const;
