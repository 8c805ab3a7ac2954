import { ioError } from '../files/io.js';
import { HqqError, plain } from '../messages/errors.js';
import { suggestion } from '../messages/suggestion.js';
import { packageVersion } from '../models/quantize/version.js';
import { type Command, type Context, toJson } from './command.js';
import { COMMANDS } from './commands/list.js';
import { failureOf } from './failure.js';
import { UsageError } from './flags.js';
import { commandHelp, generalHelp } from './help.js';
import { say } from './process.js';

function findCommand(name: string): Command {
  const found = COMMANDS.find((command) => command.name === name);
  if (found) return found;
  if (name.startsWith('-'))
    throw new UsageError(`Expected a command before ${plain(name)}: hqq <command> [flags].${nearOwn(name)}`);
  const names = COMMANDS.map((command) => command.name);
  const hint = suggestion(name, names) || ` Commands: ${names.join(', ')}.`;
  throw new UsageError(`Unknown command ${JSON.stringify(name)}.${hint}`);
}

/** The flags that need no command. */
const OWN_FLAGS = ['--help', '--version'];

/** `--versoin` is no flag of a command that was forgotten. */
function nearOwn(flag: string): string {
  return suggestion(flag, OWN_FLAGS).replaceAll('"', '');
}

const isHelp = (arg: string) => arg === '--help' || arg === '-h';

/** The arguments before `--`, where flags can be. */
export function flagsOf(args: readonly string[]): readonly string[] {
  return args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
}

/** One run of the program, whatever process it is in. */
export class Program {
  /** Whether there is a result, or a part of one, on standard output. */
  #printed = false;
  /** What the run wrote and leaves in its place, whatever becomes of the report. */
  #output: string | undefined;
  readonly #args: readonly string[];
  readonly #signal: AbortSignal;
  readonly #write: (text: string) => void;

  /**
   * @param args What follows the program's name.
   * @param signal Aborted by Ctrl-C and its like.
   * @param write Writes to standard output.
   */
  constructor(args: readonly string[], signal: AbortSignal, write: (text: string) => void) {
    this.#args = args;
    this.#signal = signal;
    this.#write = write;
  }

  /** Runs it, and returns its exit status. */
  async run(): Promise<number> {
    try {
      return await this.#dispatch();
    } catch (error) {
      // What fails in the course of an interruption is not what people want to hear of.
      return this.report(this.#signal.aborted ? this.#signal.reason : error);
    }
  }

  /** Says what went wrong, and gives the exit status for it. */
  report(error: unknown): number {
    const { status, code, message } = failureOf(
      error,
      COMMANDS.find(({ name }) => name === this.#args[0]),
    );
    say(message);
    if (code === 'ERR_INTERNAL' && process.env.HQQ_DEBUG === '1' && error instanceof Error)
      process.stderr.write(`${error.stack}\n`);
    // A script that parses standard output finds one document there, whatever happens.
    if (flagsOf(this.#args).includes('--json') && !this.#printed) this.#print(toJson({ error: { code, message } }));
    return status;
  }

  /** The same of standard output itself. */
  reportOutput(error: NodeJS.ErrnoException): number {
    this.#printed = true; // and a second attempt would fail as the first did
    const failure = ioError('Cannot write to', 'standard output', error);
    const stays = this.#output === undefined ? '' : ` Only the report is lost: ${plain(this.#output)} is complete.`;
    return this.report(failure instanceof HqqError ? new HqqError(failure.code, failure.message + stays) : failure);
  }

  #print(text: string, written?: string): void {
    this.#printed = true;
    this.#output = written;
    this.#write(text);
  }

  async #dispatch(): Promise<number> {
    const [name, ...rest] = this.#args;
    if (name === undefined) {
      process.stderr.write(generalHelp(COMMANDS));
      return 2;
    }
    if (name === '--version' || name === '-v') {
      this.#print(`${packageVersion()}\n`);
      return 0;
    }
    if (isHelp(name) || name === 'help') {
      const topic = rest.find((arg) => !isHelp(arg));
      this.#print(topic === undefined ? generalHelp(COMMANDS) : commandHelp(findCommand(topic)));
      return 0;
    }
    const command = findCommand(name);
    if (flagsOf(rest).some(isHelp)) {
      this.#print(commandHelp(command));
      return 0;
    }
    const context: Context = { signal: this.#signal, print: (text, written) => this.#print(text, written) };
    return command.parse(rest)(context);
  }
}
