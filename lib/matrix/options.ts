import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { AUTO_OPTIONS, type AutoOption, isAutoOption } from '../solvers/auto.js';
import { ZERO_POINTS } from '../solvers/solver.js';
import { SOLVERS, type Solver } from '../solvers/solvers.js';
import { NBITS, PRUNE_PATTERNS, type QuantConfig, type ResolvedQuantConfig } from './config.js';
import { MAX_ITERATIONS } from './constants.js';
import { DTYPE_NAMES } from './dtype.js';
import { GRANULARITY, groupSizeOf, META } from './grouping.js';
import { type Check, choice, isBoolean, isNumber, isOneOf } from './option.js';
import { ownDefault, PENALTIES, type Penalty, rejectForSolver, solverAskedFor } from './solver-options.js';

/** `'auto'`, or a number in [low, high]. */
const autoOr = (low: number, high: number) => (value: unknown) =>
  value === 'auto' || (isNumber(value) && value >= low && value <= high);

/** The one list of options: defaults and checks read it, and the flags of the command line (lib/cli/quant-flags.ts). */
export const OPTIONS: { readonly [K in keyof QuantConfig]-?: Check<ResolvedQuantConfig[K]> } = {
  nbits: choice(NBITS, 4),
  groupSize: {
    default: 64,
    expected: 'a positive integer, or null for whole rows or columns',
    accepts: (value) =>
      value === null || (Number.isSafeInteger(value) && (value as number) > 0 && (value as number) < 2 ** 31),
  },
  granularity: GRANULARITY,
  axis: {
    default: 1,
    expected: '0 or 1',
    accepts: isOneOf([0, 1]),
  },
  solver: choice(SOLVERS, 'joint'),
  lpNorm: {
    default: 2,
    expected: 'a number in (0, 1], or 2 for squares, or auto',
    accepts: (value) => value === 'auto' || (isNumber(value) && ((value > 0 && value <= 1) || value === 2)),
  },
  beta: {
    default: 10,
    expected: 'a number in [1e-6, 1e6], or auto',
    accepts: autoOr(1e-6, 1e6),
  },
  lambda: {
    default: 0.001,
    expected: 'a number in [0, 1e6], or auto',
    accepts: autoOr(0, 1e6),
  },
  rho: {
    default: 0.75,
    expected: 'a number in [0.001, 1000], or auto',
    accepts: autoOr(0.001, 1000),
  },
  kappa: {
    default: 1,
    expected: 'a number in [1, 2]',
    accepts: (value) => isNumber(value) && value >= 1 && value <= 2,
  },
  iterations: {
    default: 20,
    expected: `an integer in [1, ${MAX_ITERATIONS}], or auto`,
    accepts: (value) =>
      value === 'auto' ||
      (Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= MAX_ITERATIONS),
  },
  zeroPoint: choice(ZERO_POINTS, 'float'),
  scaleDtype: choice(DTYPE_NAMES, 'float32'),
  roundZero: { default: false, expected: 'true or false', accepts: isBoolean },
  referenceGuards: {
    default: false,
    expected: 'true or false',
    accepts: isBoolean,
  },
  metaBits: META,
  prune: {
    default: 0,
    expected: `a number in [0, 1), ${PRUNE_PATTERNS.join(' or ')}`,
    accepts: (value) => isOneOf(PRUNE_PATTERNS)(value) || (isNumber(value) && value >= 0 && value < 1),
  },
  trace: { default: false, expected: 'true or false', accepts: isBoolean },
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
    const reader = PENALTIES[name as Penalty];
    // What nobody reads would do nothing: told, not ignored. A default may stand, as in a configuration that is resolved already.
    const unread = reader && reader !== resolved.solver && value !== option.default;
    if (unread || !option.accepts(value)) {
      const expected = unread ? `left to solver ${reader}` : option.expected;
      throw new HqqError('ERR_INVALID_OPTION', `Expected ${name} to be ${expected}, got ${show(value)}.`);
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
