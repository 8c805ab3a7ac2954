import { constants } from 'node:os';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { endProgress, eraseProgress } from './show/progress.js';

/** What interrupts a run. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The reason of an abort by a signal. */
export class Interruption extends Error {
  override readonly name = 'AbortError';

  constructor(readonly signal: (typeof SIGNALS)[number]) {
    super(`interrupted by ${signal}`);
  }

  /** 128 and the signal's number, as shells have it: 130 for Ctrl-C. */
  get status(): number {
    return 128 + constants.signals[this.signal];
  }
}

/** One paragraph on standard error. */
export function say(message: string): void {
  eraseProgress();
  process.stderr.write(`hqq: ${message}\n`);
}

/** A signal that the first Ctrl-C aborts. The second ends the process. */
export function interruptible(): AbortSignal {
  const controller = new AbortController();
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      const reason = new Interruption(signal);
      if (!controller.signal.aborted) return controller.abort(reason);
      // Whoever hangs is left behind. What was half written is cleared on the way out.
      endProgress();
      process.exit(reason.status);
    });
  }
  return controller.signal;
}

/** The package's own warnings as one line, unless `quiet`; all others as Node.js shows them. */
export function takeOverWarnings(quiet: boolean): void {
  const printers = process.listeners('warning'); // none with --no-warnings
  process.removeAllListeners('warning');
  process.on('warning', (warning) => {
    const { code, detail = '' } = warning as { code?: string; detail?: string };
    if (!code?.startsWith('HQQ_')) for (const printer of printers) printer(warning);
    else if (printers.length > 0 && !quiet) {
      say(`${warning.message} ${detail}`.replace(/^hqq /, '').replaceAll('\n', ' ').trimEnd());
    }
  });
}

/** The V8 of Node 22: up to it, the factor by which the space of new objects grows may be 1. Later ones were not tried. */
const LAST_V8 = 12;

/**
 * Keeps JavaScript's own memory small beside large arrays: objects that are new lie in as little as they do now (it would grow to 32 MB), and
 * between two phases lib/calibrate collects what the first one left.
 */
export async function spareMemory(): Promise<void> {
  const { v8 = '', deno, bun } = process.versions;
  if (deno !== undefined || bun !== undefined) return; // of V8's flags they have few, or none
  if (Number.parseInt(v8, 10) <= LAST_V8) setFlagsFromString('--semi-space-growth-factor=1');
  let gc: NodeJS.GCFunction | undefined;
  const { collectBy } = await import('../calibrate/give-back.js'); // others of the command need no backend
  collectBy(() => {
    setFlagsFromString('--expose-gc'); // of contexts that are made from now on: nobody else has it
    gc ??= runInNewContext('gc') as NodeJS.GCFunction;
    gc();
  });
}

/** Ends the process when standard output fails: quietly when its reader has seen enough, as in `| head`. */
export function watchOutput(failed: (error: NodeJS.ErrnoException) => number): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    endProgress();
    process.exit(error.code === 'EPIPE' ? undefined : failed(error));
  });
  process.stderr.on('error', () => {}); // nobody is left to tell
}

/** What escapes every promise is reported like what does not: never as a stack trace. */
export function watchEscapes(failed: (error: unknown) => number): void {
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error: unknown) => {
      endProgress();
      process.exit(failed(error));
    });
  }
}
