import { HqqError } from './errors.js';
import { plural } from './units.js';

/**
 * Refuses more arguments than a public function takes: an option in a place of its own would be ignored in silence. The first
 * line of every public function, method and constructor; test/surplus.test.ts walks through the exports.
 *
 * @param given `arguments.length`
 * @param most How many the function takes.
 * @param call As it is documented: `quantizeModel(input, output, options)`.
 * @throws {HqqError} `ERR_INVALID_ARGUMENT`
 */
export function refuseSurplus(given: number, most: number, call: string): void {
  if (given <= most) return;
  const hints = [
    ...(/\b(options|run)\)$/.test(call) ? ['Every option goes into the last, signal and threads too.'] : []),
    ...(given === 3 && most < 3 ? ['A callback of map or forEach is given three: wrap the call in a function.'] : []),
  ];
  const limit = most === 0 ? 'no arguments' : `at most ${plural(most, 'argument')}`;
  throw new HqqError('ERR_INVALID_ARGUMENT', [`Expected ${limit} for ${call}, got ${given}.`, ...hints].join(' '));
}
