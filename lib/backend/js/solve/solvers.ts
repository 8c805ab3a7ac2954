import { SOLVERS, type Solver } from '../../../solvers/solvers.js';
import type { SolveOptions } from './group.js';
import { hqq } from './hqq.js';
import { minmax } from './minmax.js';
import type { Steps } from './solve.js';

/** How each solver steps. */
const STEPS: { readonly [Name in Solver]: (options: SolveOptions) => Steps } = { hqq, minmax };

/** The solver with an id: its place in the list. */
export const stepsOf = (id: number): ((options: SolveOptions) => Steps) => STEPS[SOLVERS[id]!];
