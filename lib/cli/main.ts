#!/usr/bin/env node
import { ioError } from '../files/io.js';
import { HqqError, plain } from '../messages/errors.js';
import { suggestion } from '../messages/suggestion.js';
import { type Command, type Context, toJson } from './command.js';
import { COMMANDS } from './commands/list.js';
import { failureOf } from './failure.js';
import { UsageError } from './flags.js';
import { commandHelp, generalHelp } from './help.js';
import { interruptible, say, takeOverWarnings, watchEscapes, watchOutput } from './process.js';
import { VERSION } from './version.js';

/** Whether there is a result, or a part of one, on standard output. */
let printed = false;

/** What the run wrote and leaves in its place, whatever becomes of the report. */
let output: string | undefined;

function print(text: string, written?: string): void {
  printed = true;
  output = written;
  process.stdout.write(text);
}

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
function flagsOf(args: readonly string[]): readonly string[] {
  return args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
}

async function run(args: readonly string[], context: Context): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) {
    process.stderr.write(generalHelp(COMMANDS));
    return 2;
  }
  if (name === '--version' || name === '-v') {
    print(`${VERSION}\n`);
    return 0;
  }
  if (isHelp(name) || name === 'help') {
    const topic = rest.find((arg) => !isHelp(arg));
    print(topic === undefined ? generalHelp(COMMANDS) : commandHelp(findCommand(topic)));
    return 0;
  }
  const command = findCommand(name);
  if (flagsOf(rest).some(isHelp)) {
    print(commandHelp(command));
    return 0;
  }
  return command.parse(rest)(context);
}

/** Says what went wrong, and gives the exit status for it. */
function report(error: unknown): number {
  const { status, code, message } = failureOf(
    error,
    COMMANDS.find(({ name }) => name === args[0]),
  );
  say(message);
  if (code === 'ERR_INTERNAL' && process.env.HQQ_DEBUG === '1' && error instanceof Error)
    process.stderr.write(`${error.stack}\n`);
  // A script that parses standard output finds one document there, whatever happens.
  if (flagsOf(args).includes('--json') && !printed) print(toJson({ error: { code, message } }));
  return status;
}

const args = process.argv.slice(2);
const signal = interruptible();
takeOverWarnings(flagsOf(args).includes('--quiet'));
watchOutput((error) => {
  printed = true; // and a second attempt would fail as the first did
  const failure = ioError('Cannot write to', 'standard output', error);
  const stays = output === undefined ? '' : ` Only the report is lost: ${plain(output)} is complete.`;
  return report(failure instanceof HqqError ? new HqqError(failure.code, failure.message + stays) : failure);
});
watchEscapes(report);
try {
  process.exitCode = await run(args, { signal, print });
} catch (error) {
  // What fails in the course of an interruption is not what people want to hear of.
  process.exitCode = report(signal.aborted ? signal.reason : error);
}
