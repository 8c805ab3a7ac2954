import type { ResolvedQuantConfig } from '../matrix/config.js';
import { DTYPE_NAMES, type DType } from '../matrix/dtype.js';
import type { Option } from '../matrix/option.js';
import { OPTION_NAMES } from '../matrix/options.js';
import { show } from '../messages/errors.js';
import { suggestion } from '../messages/suggestion.js';
import { IMPORTANCE_OPTIONS, IMPORTANCE_WORDS } from '../models/importance-options.js';
import { MODEL_OPTIONS } from '../models/options.js';
import { LOAD_OPTIONS } from '../runtime/load-options.js';

/** The command line itself is wrong: exit status 2, and nothing has been read yet. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** One flag. Its name is its key in the table in kebab case: `groupSize` is `--group-size`. */
export interface Flag<T> {
  /** One line for `--help`. */
  readonly help: string;
  /** What stands for the value in help. Absent: a switch, `true` when given. */
  readonly value?: string;
  /** How the text becomes a value; by default it stays text. */
  readonly parse?: (text: string) => unknown;
  readonly accepts?: (value: unknown) => boolean;
  /** Completes "Expected --flag to be ...". */
  readonly expected?: string;
  /** Shown in help. Defaults are filled in by what the flag is passed to. */
  readonly default?: string | undefined;
  readonly required?: boolean;
  /** Whether what follows the flag is its value: one that may go without (`true` then) takes no argument for it. Absent: it is. */
  readonly takes?: (next: string) => boolean;
  /** May be given several times: values are collected. */
  readonly repeats?: boolean;
  /** Only for the type of the value. */
  readonly type?: T;
}

export type Flags = { readonly [name: string]: Flag<unknown> };

/** Values by name; those that were not given are absent. */
export type Values<F extends Flags> = { readonly [K in keyof F]?: F[K] extends Flag<infer T> ? T : never };

export function kebab(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** Text that is no number stays text, so that the error shows what was typed. */
export const number = (given: string): unknown =>
  given.trim() !== '' && Number.isFinite(Number(given)) ? Number(given) : given;

// Kinds of flags.

function toggle(help: string): Flag<boolean> {
  return { help };
}

export function text(value: string, help: string, more: Partial<Flag<string>> = {}): Flag<string> {
  return { value, help, accepts: (given) => given !== '', expected: `a ${value}`, ...more };
}

/** A whole number in a range. */
export function count(
  value: string,
  help: string,
  [least, most]: readonly [number, number],
  fallback: number,
): Flag<number> {
  const accepts = (given: unknown) =>
    Number.isSafeInteger(given) && (given as number) >= least && (given as number) <= most;
  return {
    value,
    help,
    accepts,
    expected: `an integer in [${least}, ${most}]`,
    parse: toNumber,
    default: String(fallback),
  };
}

const toNumber = (given: string): unknown => (/^-?\d+$/.test(given.trim()) ? Number(given) : given);

/** The flag of an option of the library. */
export function fromOption<T>(option: Option<T>): Flag<T> {
  const { help, parse, accepts } = option;
  // Where a program says null, a person types none.
  const expected = option.expected.replaceAll(/\bnull\b/g, 'none');
  const spelt = option.default === undefined ? undefined : option.default === null ? 'none' : String(option.default);
  return parse ? { help, value: 'value', parse, accepts, expected, default: spelt } : { help };
}

export type FlagsOf<O> = { readonly [K in keyof O]: O[K] extends Option<infer T> ? Flag<T> : never };

/** The flags of a table of options, in its order. */
// biome-ignore lint/suspicious/noExplicitAny: values of all types, which FlagsOf tells apart
export function fromOptions<O extends { readonly [name: string]: Option<any> }>(options: O): FlagsOf<O> {
  return Object.fromEntries(Object.entries(options).map(([name, option]) => [name, fromOption(option)])) as FlagsOf<O>;
}

/** Those of `values` that are quantization options. */
export function quantConfig(values: Partial<ResolvedQuantConfig>): Partial<ResolvedQuantConfig> {
  return Object.fromEntries(OPTION_NAMES.flatMap((name) => (values[name] === undefined ? [] : [[name, values[name]]])));
}

// Flags that several commands have.

export const OUT = text('path', 'where to write; a folder if the model is one', { required: true });
export const FORCE = fromOption(MODEL_OPTIONS.force);
export const THREADS = fromOption(MODEL_OPTIONS.threads) as Flag<number>;
/** A flag that collects globs; its help is to be added. */
export const GLOBS: Flag<readonly string[]> = {
  help: '',
  value: 'glob',
  accepts: MODEL_OPTIONS.include.accepts,
  expected: 'a glob',
  repeats: true,
};
export const JSON_FLAG = toggle('one JSON document on standard output, of an error, too');
export const QUIET = toggle('say nothing but errors');
/** The same for commands whose result is what they print. */
export const NO_PROGRESS = toggle('say nothing but the result and errors');
export const ALL = toggle('every tensor, however many there are');
export const DTYPE: Flag<DType> = {
  help: 'type of every floating-point tensor; else weights become float32',
  value: 'type',
  accepts: (given) => (DTYPE_NAMES as readonly unknown[]).includes(given),
  expected: `one of ${DTYPE_NAMES.join(', ')}`,
};

/** Flags of what finds importance. */
export const IMPORTANCE_FLAGS = fromOptions({
  ...IMPORTANCE_OPTIONS,
  importance: { ...IMPORTANCE_OPTIONS.importance, expected: IMPORTANCE_WORDS },
});

export const ACTIVATIONS = fromOption(LOAD_OPTIONS.activations);
export const HEAD = fromOption(LOAD_OPTIONS.head);
export const CACHE_DTYPE = fromOption(LOAD_OPTIONS.cacheDtype);
export const MAX_CONTEXT = fromOption(LOAD_OPTIONS.maxContext);
/** Adapters that all of a command's texts have. */
export const ADAPTER: Flag<readonly string[]> = {
  help: 'LoRA adapter (a folder of peft) beside the weights; may be given again: they add up',
  value: 'folder',
  accepts: (given) => given !== '',
  expected: 'a folder',
  repeats: true,
};

/** The same as options of loading, and of a call: they are called by their places. */
export function besideWeights(folders: readonly string[] = []) {
  return {
    load: { adapters: Object.fromEntries(folders.map((folder, i) => [String(i + 1), folder])) },
    run: { adapter: folders.map((_, i) => String(i + 1)) },
  };
}

/** What is left of `--flag` in a message: never a wall of text. */
function spelling(flag: string): string {
  return show(flag).slice(1, -1);
}

/** The value of `flag` that `given` stands for. `label` is what the message calls it. */
export function readValue(flag: Flag<unknown>, label: string, given: string): unknown {
  const value = flag.parse ? flag.parse(given) : given;
  if (flag.accepts && !flag.accepts(value)) {
    const choices = /^one of (.*)$/.exec(flag.expected ?? '')?.[1]?.split(', ') ?? [];
    const hint = typeof value === 'string' && value !== '' ? suggestion(value, choices) : '';
    throw new UsageError(`Expected ${label} to be ${flag.expected}, got ${show(value)}.${hint}`);
  }
  return value;
}

/**
 * Reads the arguments of one command.
 *
 * @throws {UsageError} for flags that do not exist, values that are missing or not accepted, and flags given twice. Required
 * flags are the caller's to demand: `--help` comes first.
 */
export function parseArguments<F extends Flags>(
  args: readonly string[],
  flags: F,
): { values: Values<F>; positionals: string[] } {
  const values: Record<string, unknown> = {};
  const positionals: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === '--') {
      positionals.push(...args.slice(i + 1));
      break;
    }
    if (!arg.startsWith('-') || arg === '-') {
      positionals.push(arg);
      continue;
    }
    const [typed, inline] = splitOnce(arg, '=');
    const named = (text: string) => Object.keys(flags).find((key) => `--${kebab(key)}` === text);
    const name = named(typed);
    if (name === undefined) throw unknownFlag(typed, Object.keys(flags));
    const flag = flags[name]!;
    let value: unknown;
    if (flag.value === undefined) value = switchValue(typed, inline);
    else if (inline !== undefined) value = readValue(flag, typed, inline);
    else if (flag.takes && !flag.takes(args[i + 1] ?? '')) value = true;
    else value = parseValue(flag, typed, args[++i], (given) => named(splitOnce(given, '=')[0]) !== undefined);
    if (flag.repeats) {
      values[name] = [...((values[name] as unknown[] | undefined) ?? []), value];
    } else {
      if (name in values) throw new UsageError(`${typed} is given twice.`);
      values[name] = value;
    }
  }
  return { values: values as Values<F>, positionals };
}

function splitOnce(whole: string, separator: string): readonly [string, string | undefined] {
  const at = whole.indexOf(separator);
  return at < 0 ? [whole, undefined] : [whole.slice(0, at), whole.slice(at + 1)];
}

function switchValue(typed: string, inline: string | undefined): true {
  if (inline !== undefined)
    throw new UsageError(`${typed} takes no value, got ${show(inline)}. Give it or leave it out.`);
  return true;
}

function parseValue(
  flag: Flag<unknown>,
  typed: string,
  given: string | undefined,
  isFlag: (text: string) => boolean,
): unknown {
  // "--out --json" has lost its path; a negative number is a value, if a wrong one.
  if (given === undefined || given.startsWith('--')) {
    const got = given === undefined ? 'nothing' : spelling(given);
    const hint =
      given === undefined || isFlag(given) ? '' : ` A value that begins with dashes is written ${typed}=<value>.`;
    throw new UsageError(`Expected a value after ${typed}: ${flag.expected ?? flag.value}. Got ${got}.${hint}`);
  }
  return readValue(flag, typed, given);
}

function unknownFlag(typed: string, names: readonly string[]): UsageError {
  if (/[./\\]/.test(typed)) {
    const advice = `A path that begins with a dash goes behind --, or is written ./${spelling(typed)}`;
    return new UsageError(`Unknown flag ${spelling(typed)}. ${advice}.`);
  }
  const spelt = names.map((name) => `--${kebab(name)}`);
  // There are no short flags: a letter stands for the flags that begin with it.
  const letter = /^-(\w)$/.exec(typed)?.[1];
  const short = letter === undefined ? [] : spelt.filter((flag) => flag.startsWith(`--${letter}`));
  if (short.length > 0) return new UsageError(`Unknown flag ${spelling(typed)}. Did you mean ${short.join(' or ')}?`);
  const hint = suggestion(
    typed.replace(/^-+/, ''),
    spelt.map((flag) => flag.slice(2)),
  );
  const meant = hint.replace(/"(.*)"/, '--$1');
  return new UsageError(`Unknown flag ${spelling(typed)}.${meant || ` Flags: ${spelt.join(', ')}.`}`);
}
