import { SOLVERS, type Solver } from '../../../solvers/solvers.js';
import { admm } from './admm.js';
import { hqq } from './hqq.js';
import { hqs } from './hqs.js';
import { joint } from './joint.js';
import { kl } from './kl.js';
import { minmax } from './minmax.js';
import type { MakeSolver } from './solve.js';

const MAKERS: { readonly [Name in Solver]: MakeSolver } = { hqq, minmax, joint, hqs, admm, kl };

/** The solver with an id: its place in the list. */
export const solverOf = (id: number): MakeSolver => MAKERS[SOLVERS[id]!];
