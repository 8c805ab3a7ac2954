import { SOLVERS, type Solver } from '../../../solvers/solvers.js';
import { hqq } from './hqq.js';
import { joint } from './joint.js';
import { minmax } from './minmax.js';
import type { MakeSolver } from './solve.js';

const MAKERS: { readonly [Name in Solver]: MakeSolver } = { hqq, minmax, joint };

/** The solver with an id: its place in the list. */
export const solverOf = (id: number): MakeSolver => MAKERS[SOLVERS[id]!];
