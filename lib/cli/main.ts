#!/usr/bin/env node
import { constants } from 'node:os';
import { HqqError } from '../errors.js';
import { ioError } from '../safetensors/io.js';
import { suggestion } from '../suggest.js';
import { COMMANDS } from './commands.js';
import type { Command, Context } from './command.js';
import { UsageError } from './flags.js';
import { commandHelp, generalHelp } from './help.js';
import { endProgress, eraseProgress } from './progress.js';
import { VERSION } from './version.js';

/** What interrupts a run. The exit status is 128 and the signal's number, as shells have it: 130 for Ctrl-C. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The reason of an abort by a signal. */
class Interruption extends Error {
  override readonly name = 'AbortError';

  constructor(readonly signal: (typeof SIGNALS)[number]) {
    super(`interrupted by ${signal}`);
  }

  get status(): number {
    return 128 + constants.signals[this.signal];
  }
}

/** One paragraph on standard error. */
function say(message: string): void {
  eraseProgress();
  process.stderr.write(`hqq: ${message}\n`);
}

function print(text: string): void {
  process.stdout.write(text);
}

function findCommand(name: string): Command {
  const found = COMMANDS.find((command) => command.name === name);
  if (found) return found;
  const names = COMMANDS.map((command) => command.name);
  if (name.startsWith('-')) throw new UsageError(`Unknown flag ${name} before the command. Usage: hqq <command> [flags].`);
  const hint = suggestion(name, names) || ` Commands: ${names.join(', ')}.`;
  throw new UsageError(`Unknown command ${JSON.stringify(name)}.${hint}`);
}

const isHelp = (arg: string) => arg === '--help' || arg === '-h';

/** The arguments of `args` before `--`, where flags can be. */
function flagsOf(args: readonly string[]): readonly string[] {
  return args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
}

async function run(args: readonly string[], context: Context): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined) {
    process.stderr.write(generalHelp(COMMANDS));
    return 2;
  }
  if (name === '--version') {
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
  return command.prepare(rest)(context);
}

/** Says what went wrong, and gives the exit status for it. */
function report(error: unknown, args: readonly string[]): number {
  const command = COMMANDS.find(({ name }) => name === args[0]);
  if (error instanceof Interruption) {
    say(command && 'out' in command.flags ? 'interrupted; nothing was written.' : 'interrupted.');
    return error.status;
  }
  if (error instanceof UsageError) {
    say(`${error.message} See hqq ${command ? `${command.name} ` : ''}--help.`);
    return 2;
  }
  if (error instanceof HqqError) {
    say(error.message);
    return error.code === 'ERR_INVALID_OPTION' ? 2 : 1;
  }
  const message = error instanceof Error ? error.message : String(error);
  say(`${message.replaceAll(/\s*\n\s*/g, ' ').replace(/\.?$/, '.')} This is a bug: please report it, with what HQQ_DEBUG=1 adds.`);
  if (process.env['HQQ_DEBUG'] === '1' && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return 1;
}

function interruptible(): AbortSignal {
  const controller = new AbortController();
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      const reason = new Interruption(signal);
      if (!controller.signal.aborted) return controller.abort(reason);
      // Asked twice: whoever hangs is left behind. What was half written is not in its place, and the next run clears it.
      endProgress();
      process.exit(reason.status);
    });
  }
  return controller.signal;
}

/** The package's own warnings as one line; all others as Node.js shows them. */
function takeOverWarnings(): void {
  const printers = process.listeners('warning');
  process.removeAllListeners('warning');
  process.on('warning', (warning) => {
    const { code, detail } = warning as { code?: string; detail?: string };
    if (code?.startsWith('HQQ_')) {
      if (printers.length > 0) say(`${warning.message} ${(detail ?? '').replaceAll('\n', ' ')}`.trimEnd());
    } else for (const printer of printers) printer(warning);
  });
}

function watchOutput(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    endProgress();
    // The reader has seen enough, as in "| head": nothing is wrong.
    if (error.code === 'EPIPE') process.exit();
    process.exit(report(ioError('Cannot write to', 'standard output', error), []));
  });
  process.stderr.on('error', () => {}); // nobody left to tell
}

async function main(): Promise<void> {
  const args = process.argv.slice(2);
  const signal = interruptible();
  takeOverWarnings();
  watchOutput();
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error: unknown) => {
      endProgress();
      process.exit(report(error, args));
    });
  }
  try {
    process.exitCode = await run(args, { signal, print, warn: say });
  } catch (error) {
    // What fails because of the interruption is not what people want to hear of.
    process.exitCode = report(signal.aborted ? signal.reason : error, args);
  }
}

await main();
