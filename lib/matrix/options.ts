import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { AUTO_OPTIONS, type AutoOption, isAutoOption } from '../solvers/auto.js';
import { ZERO_POINTS } from '../solvers/solver.js';
import { SOLVERS, SOLVERS_HELP, type Solver } from '../solvers/solvers.js';
import { NBITS, type QuantConfig, type ResolvedQuantConfig } from './config.js';
import { MAX_ITERATIONS } from './constants.js';
import { DTYPE_NAMES } from './dtype.js';
import { GRANULARITY, groupSizeOf, META } from './grouping.js';
import { isBoolean, isNumber, isOneOf, number, type Option } from './option.js';
import { ownDefault, rejectForSolver, solverAskedFor } from './solver-options.js';

/** The one list of options: defaults, checks, command-line flags and help read it. */
export const OPTIONS: { readonly [K in keyof QuantConfig]-?: Option<ResolvedQuantConfig[K]> } = {
  nbits: {
    default: 4,
    expected: `one of ${NBITS.join(', ')}`,
    accepts: isOneOf(NBITS),
    help: 'bits per weight (in the file 6 and 5 take 8, 1.58 takes 2)',
    parse: number,
  },
  groupSize: {
    default: 64,
    expected: 'a positive integer, or null for whole rows or columns',
    accepts: (value) =>
      value === null || (Number.isSafeInteger(value) && (value as number) > 0 && (value as number) < 2 ** 31),
    help: 'weights per scale and zero',
    parse: (text) => (text === 'none' || text === 'null' ? null : number(text)),
  },
  granularity: GRANULARITY,
  axis: {
    default: 1,
    expected: '0 or 1',
    accepts: isOneOf([0, 1]),
    help: 'side along which groups run',
    parse: number,
  },
  solver: {
    default: 'joint',
    expected: `one of ${SOLVERS.join(', ')}`,
    accepts: isOneOf(SOLVERS),
    help: `how scales and zeros are found (${SOLVERS_HELP})`,
    parse: (text) => text,
  },
  lpNorm: {
    default: 2,
    expected: 'a number in (0, 1], or 2 for squares, or auto',
    accepts: (value) => value === 'auto' || (isNumber(value) && ((value > 0 && value <= 1) || value === 2)),
    help: 'exponent of the Lp norm; of solver joint 2: squares',
    parse: number,
  },
  beta: {
    default: 10,
    expected: 'a number in [1e-6, 1e6], or auto',
    accepts: (value) => value === 'auto' || (isNumber(value) && value >= 1e-6 && value <= 1e6),
    help: 'penalty of the half-quadratic split',
    parse: number,
  },
  lambda: {
    default: 0.001,
    expected: 'a number in [0, 1e6]',
    accepts: (value) => isNumber(value) && value >= 0 && value <= 1e6,
    help: 'penalty of solver hqs',
    parse: number,
  },
  rho: {
    default: 0.75,
    expected: 'a number in [0.001, 1000]',
    accepts: (value) => isNumber(value) && value >= 0.001 && value <= 1000,
    help: 'penalty of solver admm',
    parse: number,
  },
  kappa: {
    default: 1,
    expected: 'a number in [1, 2]',
    accepts: (value) => isNumber(value) && value >= 1 && value <= 2,
    help: 'growth of beta, or lambda, per iteration',
    parse: number,
  },
  iterations: {
    default: 20,
    expected: `an integer in [1, ${MAX_ITERATIONS}], or auto`,
    accepts: (value) =>
      value === 'auto' ||
      (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= MAX_ITERATIONS),
    help: 'most iterations of a group',
    parse: number,
  },
  zeroPoint: {
    default: 'float',
    expected: `one of ${ZERO_POINTS.join(', ')}`,
    accepts: isOneOf(ZERO_POINTS),
    help: 'zeros that groups may have: any, a code, the middle code',
    parse: (text) => text,
  },
  scaleDtype: {
    default: 'float32',
    expected: `one of ${DTYPE_NAMES.join(', ')}`,
    accepts: isOneOf(DTYPE_NAMES),
    help: 'type that scales are rounded to before codes are chosen',
    parse: (text) => text,
  },
  roundZero: { default: false, expected: 'true or false', accepts: isBoolean, help: 'round the starting zero point' },
  referenceGuards: {
    default: false,
    expected: 'true or false',
    accepts: isBoolean,
    help: "use the reference's absolute guards",
  },
  metaBits: META,
  trace: { default: false, expected: 'true or false', accepts: isBoolean, help: 'the objective after each iteration' },
};

export const OPTION_NAMES = Object.keys(OPTIONS) as readonly (keyof QuantConfig)[];

/**
 * Fills in defaults. Which options were given is lost: what depends on that (`formOf`) takes the configuration as it came.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION` for unknown names, and for values that no matrix could satisfy.
 */
export function resolveQuantConfig(config: QuantConfig = {}): ResolvedQuantConfig {
  if (typeof config !== 'object' || config === null) {
    throw new HqqError('ERR_INVALID_OPTION', `Expected the configuration to be an object, got ${show(config)}.`);
  }
  rejectUnknownOptions(config, OPTION_NAMES);
  const asked = { ...config, solver: config.solver ?? solverAskedFor(config) };
  const resolved: Record<string, unknown> = {};
  const auto: AutoOption[] = [];
  for (const name of OPTION_NAMES) {
    const option = OPTIONS[name];
    const isAuto = asked[name] === 'auto' && isAutoOption(name);
    if (isAuto) auto.push(name);
    const given = isAuto ? undefined : asked[name];
    const value = given === undefined ? defaultOf(name, resolved.solver as Solver) : given; // null is a value: see groupSize
    if (!option.accepts(value)) {
      throw new HqqError('ERR_INVALID_OPTION', `Expected ${name} to be ${option.expected}, got ${show(value)}.`);
    }
    resolved[name] = value;
  }
  if (auto.length > 0) resolved.auto = AUTO_OPTIONS.filter((name) => auto.includes(name));
  resolved.groupSize = groupSizeOf(resolved as ResolvedQuantConfig, config.groupSize);
  const whole = Object.freeze(resolved) as ResolvedQuantConfig;
  rejectForSolver(whole);
  return whole;
}

/** The default of an option: the solver's own, where it has one. */
export function defaultOf(name: keyof QuantConfig, solver: Solver): unknown {
  return ownDefault(name, solver) ?? OPTIONS[name].default;
}
