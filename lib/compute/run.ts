import type { Backend, Operations, PreparedSequences, Step } from '../../binding.js';
import type { InputArray } from '../matrix/arrays.js';
import { MAX_THREADS } from '../matrix/constants.js';
import type { RunOptions } from '../matrix/weight.js';
import { HqqError, show } from '../messages/errors.js';
import { rejectUnknownOptions } from '../messages/options-object.js';
import { activeBackend, defaultThreads, markAsUntransferable } from './host.js';
import { checkSignal, onAbort } from './signal.js';

/** What computes. */
export interface Machine {
  readonly backend: Backend;
  readonly threads: number;
  readonly signal: AbortSignal | undefined;
}

/** Names of `RunOptions`. */
export const RUN_OPTIONS = ['signal', 'threads'] as const satisfies readonly (keyof RunOptions)[];

/**
 * Checks the options that say how a call runs. `more` are the names that the call itself adds.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function checkRunOptions(run: object, more: readonly string[] = []): void {
  if (typeof run !== 'object' || run === null) {
    throw new HqqError('ERR_INVALID_OPTION', `Expected the run options to be an object, got ${show(run)}.`);
  }
  rejectUnknownOptions(run, [...RUN_OPTIONS, ...more]);
  const { signal, threads } = run as RunOptions;
  checkSignal(signal);
  if (threads !== undefined) resolveThreads(threads);
}

/**
 * Refuses options that belong into another argument, and says into which.
 *
 * @param place How the call is written with the option where it belongs.
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function rejectMisplaced(
  given: object | undefined,
  names: readonly string[],
  place: (name: string) => string,
): void {
  const name = names.find((misplaced) => Object.hasOwn(given ?? {}, misplaced));
  if (name === undefined) return;
  throw new HqqError('ERR_INVALID_OPTION', `Expected ${name} in another argument: ${place(name)}.`);
}

/**
 * How many threads a call may use: what it says, else `HQQ_THREADS`, else the parallelism that the system offers.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION` unless it is an integer in [1, 256].
 */
export function resolveThreads(threads?: number): number {
  if (threads === undefined) return defaultThreads();
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
    throw new HqqError(
      'ERR_INVALID_OPTION',
      `Expected threads to be an integer in [1, ${MAX_THREADS}], got ${show(threads)}.`,
    );
  }
  return threads;
}

/**
 * Runs an operation without blocking the event loop. The arrays of `args` belong to it until the promise settles.
 *
 * @throws the signal's reason, within milliseconds of an abort; by then nothing reads or writes the arrays any more.
 * @throws {HqqError} `ERR_OUT_OF_MEMORY`
 */
export async function runTask<K extends keyof Operations>(
  backend: Backend,
  operation: K,
  args: Operations[K],
  run: RunOptions = {},
): Promise<void> {
  const { signal } = run;
  signal?.throwIfAborted();
  const task = start(backend, operation, args);
  const release = onAbort(signal, () => task.cancel());
  try {
    await task.promise;
  } catch (error) {
    if (!signal?.aborted) throw translate(error);
  } finally {
    release();
  }
  // Also when the abort came too late to stop it: who aborts is told so.
  signal?.throwIfAborted();
}

/** Runs operations one after the other. @throws as `runTask` does */
export async function runSteps(steps: readonly Step[], run: RunOptions): Promise<void> {
  for (const { operation, args } of steps) await runTask(activeBackend(), operation, args, run);
}

/** Runs an operation on the calling thread: the blocking twin of `runTask`. */
export function runTaskSync<K extends keyof Operations>(
  backend: Backend,
  operation: K,
  args: Operations[K],
  run: RunOptions = {},
): void {
  run.signal?.throwIfAborted();
  try {
    backend.run(operation, args);
  } catch (error) {
    throw translate(error);
  }
}

/** `prepare` of a backend, of one sequence. @throws {HqqError} `ERR_OUT_OF_MEMORY` */
export function prepareSteps(backend: Backend, steps: readonly Step[]): PreparedSequences {
  try {
    return backend.prepare({ sequences: [{ steps }] });
  } catch (error) {
    throw translate(error);
  }
}

function start<K extends keyof Operations>(backend: Backend, operation: K, args: Operations[K]) {
  try {
    return backend.start(operation, args);
  } catch (error) {
    throw translate(error);
  }
}

/** Failures that users can meet, in the package's own class; others are defects and keep their own. */
function translate(error: unknown): unknown {
  if (error instanceof HqqError || !(error instanceof Error)) return error;
  const code = (error as { code?: unknown }).code;
  return code === 'ERR_OUT_OF_MEMORY' ? new HqqError(code, error.message, { cause: error }) : error;
}

/**
 * Keeps the buffers of arrays that users passed in from being transferred away, for good: a transfer during the call would
 * leave native code reading freed memory. Node 20 then ignores a transfer of such a buffer, newer versions throw. (Only
 * `ArrayBuffer.prototype.transfer` of Node 22 gets past it; Node 24 closes that too.)
 */
export function pinInputs(...arrays: readonly InputArray[]): void {
  for (const { buffer } of arrays) markAsUntransferable(buffer as ArrayBuffer);
}
