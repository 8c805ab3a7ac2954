import { type Flags, kebab, parseArguments, UsageError, type Values } from './flags.js';

/** What a command is given besides its arguments. */
export interface Context {
  /** Aborted by Ctrl-C and its like. */
  readonly signal: AbortSignal;
  /**
   * Results: the only way to standard output.
   *
   * @param written The output that is in its place by now, if there is one: it stays where the text cannot be written.
   */
  readonly print: (text: string, written?: string) => void;
}

/** One command: what its help, its checks and its dispatch read. */
export interface Command {
  readonly name: string;
  /** Names of its arguments, all of which are needed. Of the last, `models...`, there may be several. */
  readonly args: readonly string[];
  /** One line. */
  readonly summary: string;
  /** More for its own help. */
  readonly details?: string;
  readonly flags: Flags;
  /** Checks the arguments before anything else happens; what it returns does the work and gives the exit status. */
  readonly parse: (args: readonly string[]) => (context: Context) => Promise<number>;
}

interface Definition<F extends Flags> extends Omit<Command, 'flags' | 'parse'> {
  readonly flags: F;
  /** Its checks may throw `UsageError`; it returns the work. A work that returns nothing went well. */
  readonly plan: (args: readonly string[], values: Values<F>) => (context: Context) => Promise<number | undefined>;
}

/** A command from its table of flags. */
export function defineCommand<F extends Flags>(definition: Definition<F>): Command {
  const { name, args, flags, plan } = definition;
  const parse = (given: readonly string[]) => {
    const { values, positionals } = parseArguments(given, flags);
    checkArguments(name, args, positionals, values);
    for (const key of Object.keys(flags)) {
      const missing = flags[key]!.required === true && values[key] === undefined;
      if (missing) throw new UsageError(`Expected --${kebab(key)} <${flags[key]!.value}>: ${flags[key]!.help}.`);
    }
    const work = plan(positionals, values);
    return async (context: Context) => (await work(context)) ?? 0;
  };
  return { ...definition, parse };
}

/** `<model>`, or `<model>...`. */
export function argument(name: string): string {
  return name.endsWith('...') ? `<${name.slice(0, -3)}>...` : `<${name}>`;
}

function checkArguments(name: string, names: readonly string[], given: readonly string[], values: object): void {
  const wanted = names.map(argument);
  const isOpen = names.at(-1)?.endsWith('...') === true;
  if (given.length < names.length) {
    throw new UsageError(
      `Expected ${wanted.slice(given.length).join(' ')} after "${['hqq', name, ...given].join(' ')}".`,
    );
  }
  if (given.length > names.length && !isOpen) {
    const extra = given[names.length]!;
    // The commonest slip: a path to write to without its flag. A flag can only be here behind --.
    const meant = name.endsWith('quantize') && !('out' in values) ? ` Did you mean --out ${extra}?` : '';
    const hint = extra.startsWith('-') ? ' Flags go before --.' : meant;
    const expects = names.length === 0 ? 'takes no arguments' : `takes ${wanted.join(' ')}`;
    throw new UsageError(`Unexpected argument ${JSON.stringify(extra)}: "hqq ${name}" ${expects}.${hint}`);
  }
  const empty = given.indexOf('');
  if (empty >= 0) throw new UsageError(`Expected ${wanted[Math.min(empty, names.length - 1)]} to be a path, got "".`);
}

/** The document that `--json` promises. */
export function toJson(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
