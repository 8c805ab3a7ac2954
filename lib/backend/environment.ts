import { availableParallelism } from 'node:os';
import { MAX_THREADS } from '../matrix/constants.js';
import { HqqError, show } from '../messages/errors.js';
import { suggestion } from '../messages/suggestion.js';

const CHOICES = ['auto', 'native', 'js'] as const;
type Choice = (typeof CHOICES)[number];

/** The variables that choose how the package computes, for `diagnose`. */
export const VARIABLES = [
  'HQQ_BACKEND',
  'HQQ_ISA',
  'HQQ_THREADS',
  'HQQ_PREBUILD',
  'PREBUILDS_ONLY',
  'OMP_WAIT_POLICY',
] as const;

/** An empty variable is one that is not set. */
function read(name: string): string | undefined {
  const value = process.env[name];
  return value === '' ? undefined : value;
}

/** `HQQ_BACKEND`: `auto` takes the addon if it loads, `native` demands it, `js` does not look for it. */
export function backendChoice(): Choice {
  const given = read('HQQ_BACKEND') ?? 'auto';
  const choice = CHOICES.find((name) => name === given);
  if (choice === undefined) {
    const expected = `Expected the environment variable HQQ_BACKEND to be one of ${CHOICES.join(', ')}`;
    throw new HqqError('ERR_INVALID_OPTION', `${expected}, got ${show(given)}.${suggestion(given, CHOICES)}`);
  }
  return choice;
}

/** `HQQ_ISA`: the instruction set that native kernels must use. */
export function isaChoice(): string | undefined {
  return read('HQQ_ISA');
}

/** `HQQ_THREADS`, else the parallelism that the system offers: what a call may use that does not say. */
export function defaultThreads(): number {
  const given = read('HQQ_THREADS');
  if (given === undefined) return Math.min(availableParallelism(), MAX_THREADS);
  const threads = /^\d+$/.test(given) ? Number(given) : 0;
  if (threads < 1 || threads > MAX_THREADS) {
    throw new HqqError(
      'ERR_INVALID_OPTION',
      `Expected the environment variable HQQ_THREADS to be an integer in [1, ${MAX_THREADS}], got ${show(given)}.`,
    );
  }
  return threads;
}
