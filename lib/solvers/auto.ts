import { type Solver, solverNamed } from './solvers.js';

/** An option that may be `'auto'`. */
export type AutoOption = 'lpNorm' | 'beta' | 'lambda' | 'rho' | 'iterations';

/** All of them: chosen for each matrix, in this order. */
export const AUTO_OPTIONS: readonly AutoOption[] = ['lpNorm', 'beta', 'lambda', 'rho', 'iterations'];

/** Whether an option may be `'auto'`. */
export const isAutoOption = (name: string): name is AutoOption => (AUTO_OPTIONS as readonly string[]).includes(name);

/** The values that are tried, of equal ones the first is taken: the solver's default comes first, save of `iterations`. */
export const AUTO_VALUES: Readonly<Record<AutoOption, (solver: Solver) => readonly number[]>> = {
  lpNorm: (solver) => {
    const { lpNorm } = solverNamed(solver);
    return lpNorm
      ? [lpNorm.default, 1, 0.85, 0.7, 0.5, 0.3].filter((p, i, all) => lpNorm.accepts(p) && all.indexOf(p) === i)
      : [];
  },
  beta: () => [10, 1, 3, 30, 100, 1000],
  lambda: (solver) => (solver === 'hqs' ? [0.001, 0, 0.01, 0.03, 0.1, 0.3] : []),
  rho: (solver) => (solver === 'admm' ? [0.75, 0.5, 0.6, 0.65, 0.7, 0.8, 0.85, 0.9, 1] : []),
  iterations: () => [3, 5, 10, 20, 40, 80],
};
