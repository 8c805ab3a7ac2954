import { admmParameters } from './admm.js';
import { hqqParameters } from './hqq.js';
import { hqsParameters } from './hqs.js';
import { jointParameters, leastFittedScale, leastJointScale } from './joint.js';
import { klParameters, leastKlScale } from './kl.js';
import { type SolverRow, ZERO_POINTS } from './solver.js';

/** The one list of solvers, in the order of native/kernels/solve/solvers.h. */
const ROWS = [
  {
    name: 'hqq',
    optimizes: true,
    keepsScale: true,
    zeroPoints: ['float'],
    lpNorm: { default: 0.7, expected: 'in (0, 1]', accepts: (lpNorm) => lpNorm <= 1 },
    parameters: hqqParameters,
  },
  {
    name: 'minmax',
    optimizes: false,
    keepsScale: true,
    zeroPoints: ZERO_POINTS,
    parameters: (): Float32Array => new Float32Array(0),
  },
  {
    name: 'joint',
    optimizes: true,
    keepsScale: false,
    leastScale: leastJointScale,
    zeroPoints: ZERO_POINTS,
    lpNorm: { default: 2, expected: 'in (0, 1] or 2', accepts: (lpNorm) => lpNorm <= 1 || lpNorm === 2 },
    parameters: jointParameters,
  },
  {
    name: 'hqs',
    optimizes: true,
    keepsScale: false,
    leastScale: leastFittedScale,
    zeroPoints: ZERO_POINTS,
    parameters: hqsParameters,
  },
  {
    name: 'admm',
    optimizes: true,
    keepsScale: false,
    leastScale: leastFittedScale,
    zeroPoints: ZERO_POINTS,
    parameters: admmParameters,
  },
  {
    name: 'kl',
    optimizes: true,
    keepsScale: false,
    leastScale: leastKlScale,
    zeroPoints: ZERO_POINTS,
    parameters: klParameters,
  },
] as const satisfies readonly SolverRow[];

/** One of `SOLVERS`. */
export type Solver = (typeof ROWS)[number]['name'];

/**
 * How scale and zero are found. `hqq` is the reference's solver; `minmax` keeps the range (round to nearest); `joint`, `hqs` and `admm`
 * fit scale and zero together; `kl` takes a shorter range.
 */
export const SOLVERS: readonly Solver[] = ROWS.map(({ name }) => name);

const NUMBERED: readonly (SolverRow & { readonly id: number })[] = ROWS.map((row, id) => ({ ...row, id }));

/** All that is known of a solver. Its place in the list is what backends are told. */
export function solverNamed(name: Solver): SolverRow & { readonly id: number } {
  return NUMBERED[SOLVERS.indexOf(name)]!;
}

/** Which zeros a group may have, in the order of their ids: see `Constants` of binding.d.ts. */
export const ZERO_KINDS = ['float', 'roundedStart', 'integer', 'symmetric'] as const;
