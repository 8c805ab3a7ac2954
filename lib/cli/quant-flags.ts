import type { QuantConfig, ResolvedQuantConfig } from '../matrix/config.js';
import type { Option } from '../matrix/option.js';
import { OPTIONS } from '../matrix/options.js';
import { type FlagsOf, fromOptions, number } from './flags.js';

// What the command line says of the options of quantization, which the library has no need to carry.

/** What each solver does with scales and zeros. */
const SOLVER_HELP: Readonly<Record<NonNullable<QuantConfig['solver']>, string>> = {
  hqq: "the reference's",
  minmax: 'by the range',
  joint: 'least squares from several ranges',
  hqs: 'from the range, codes drawn by lambda',
  admm: 'from the range, with dual variables',
  kl: 'the range whose histogram changes least',
};

const SOLVERS = Object.entries(SOLVER_HELP).map(([name, help]) => `${name}: ${help}`);

const text = (given: string): unknown => given;

/** The options that whole models have. */
type Name = Exclude<keyof QuantConfig, 'trace'>;

const ROWS: Readonly<Record<Name, Pick<Option<unknown>, 'help' | 'parse'>>> = {
  nbits: { help: 'bits per weight (in the file 6 and 5 take 8, 1.58 takes 2)', parse: number },
  groupSize: {
    help: 'weights per scale and zero',
    parse: (given) => (given === 'none' || given === 'null' ? null : number(given)),
  },
  granularity: { help: 'what shares a scale and zero (channel: a row; tensor: all; weight: none)', parse: text },
  axis: { help: 'side along which groups run', parse: number },
  solver: { help: `how scales and zeros are found (${SOLVERS.join('; ')})`, parse: text },
  lpNorm: { help: 'exponent of the Lp norm; of solver joint 2: squares', parse: number },
  beta: { help: 'penalty of the half-quadratic split', parse: number },
  lambda: { help: 'penalty of solver hqs', parse: number },
  rho: { help: 'penalty of solver admm', parse: number },
  kappa: { help: 'growth of beta, or lambda, per iteration', parse: number },
  iterations: { help: 'most iterations of a group', parse: number },
  zeroPoint: { help: 'zeros that groups may have: any, a code, the middle code', parse: text },
  scaleDtype: { help: 'type that scales are rounded to before codes are chosen', parse: text },
  roundZero: { help: 'round the starting zero point' },
  referenceGuards: { help: "use the reference's absolute guards" },
  prune: {
    help: 'part of the weights that become zeros first, or 2:4, 4:8 (needs zero point integer or symmetric)',
    parse: (given) => (given.includes(':') ? given : number(given)),
  },
  metaBits: { help: 'bits of a scale, and of a zero (8: quantized themselves)', parse: number },
};

type Table = { readonly [K in Name]: Option<ResolvedQuantConfig[K]> };

const { trace: _, ...OF_MODELS } = OPTIONS;
const TABLE = Object.fromEntries(
  Object.entries(OF_MODELS).map(([name, check]) => [name, { ...check, ...ROWS[name as Name] }]),
) as unknown as Table;

/** One flag for every quantization option that whole models have, in the order of `OPTIONS`. */
export const QUANT_FLAGS: FlagsOf<Table> = fromOptions(TABLE);
