import { HqqError, show } from '../../../messages/errors.js';
import type { Range } from './kinds.js';
import { NUMBER, type NumberKind } from './numbers.js';

/** A JSON schema, or a part of one. */
export type Schema = Readonly<Record<string, unknown>>;

/** Numbers between the bounds of a schema. */
export function numberKind(schema: Schema, path: string, integer: boolean): NumberKind {
  const bound = (name: string, none: number): number => {
    const value = schema[name] ?? none;
    if (typeof value === 'number') return value;
    throw invalid(`Expected ${path}.${name} to be a number, got ${show(value)}.`);
  };
  let [min, max] = [bound('minimum', -Infinity), bound('maximum', Infinity)];
  const [above, below] = [bound('exclusiveMinimum', -Infinity), bound('exclusiveMaximum', Infinity)];
  if (integer) {
    // Every integer that JavaScript counts to is no bound to speak of.
    min = Math.max(Math.ceil(min), Math.floor(above) + 1);
    max = Math.min(Math.floor(max), Math.ceil(below) - 1);
    if (min <= Number.MIN_SAFE_INTEGER) min = -Infinity;
    if (max >= Number.MAX_SAFE_INTEGER) max = Infinity;
  } else if (above > -Infinity || below < Infinity) {
    const [low, high] = [above >= min, below <= max];
    min = low && above > -Infinity ? above + tiny(above) : min;
    max = high && below < Infinity ? below - tiny(below) : max;
  }
  if (min > max) throw invalid(`Expected ${path} to allow some numbers, got minimum ${min} and maximum ${max}.`);
  return { kind: 'number', integer, min, max };
}

/** More than the distance to the next number that is written with as many digits as are allowed. */
const tiny = (x: number) => Math.max(Math.abs(x) * 2 ** -50, 10 ** -NUMBER.fraction);

/** What two keywords of a schema say of a length. */
export function range(schema: Schema, path: string, least: string, most: string): Range {
  const read = (name: string, none: number): number => {
    const value = schema[name] ?? none;
    if (value === Infinity || (Number.isSafeInteger(value) && (value as number) >= 0)) return value as number;
    throw invalid(`Expected ${path}.${name} to be an integer, at least 0, got ${show(value)}.`);
  };
  const [min, max] = [read(least, 0), read(most, Infinity)];
  if (min > max) throw invalid(`Expected ${path}.${least} to be at most ${most}, got ${min} and ${max}.`);
  return { min, max };
}

/** The error for a schema that no text can be kept to. */
export function invalid(message: string): HqqError {
  return new HqqError('ERR_INVALID_OPTION', message);
}
