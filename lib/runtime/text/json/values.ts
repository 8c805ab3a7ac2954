import { HqqError } from '../../../messages/errors.js';
import type { Choice, Kind } from './kinds.js';
import { isWhole, mayBegin, type NumberKind } from './numbers.js';

/** Values nested in each other. */
export const DEEPEST = 64;

/** Beginnings of numbers that are tried. */
const MOST_TRIED = 2000;

/**
 * Refuses schemas that no value is of, or one of whose alternatives none is of: a text that has begun with it could not be ended.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function demandValues(
  schemas: readonly { readonly choice: Choice; readonly path: string }[],
  any: Choice,
): void {
  // Those that have a value of at most so many values within each other.
  const done = new Set<Choice>([any]);
  let left = [...schemas].reverse();
  const has = (kind: Kind): boolean => {
    switch (kind.kind) {
      case 'literal':
      case 'string':
        return true;
      case 'number':
        return hasNumber(kind);
      case 'object':
        return [...kind.required].every((name) => done.has(kind.properties.get(name)!));
      case 'array': {
        const { prefix, items, min } = kind;
        return prefix.slice(0, min).every((one) => done.has(one)) && (min <= prefix.length || done.has(items!));
      }
    }
  };
  for (let depth = 0; depth <= DEEPEST && left.length > 0; depth++) {
    const found = new Set(left.filter(({ choice }) => choice().some(has)));
    if (found.size === 0) break;
    for (const { choice } of found) done.add(choice);
    left = left.filter((one) => !found.has(one));
  }
  const empty = left.at(-1) ?? schemas.find(({ choice }) => !choice().every(has));
  if (empty === undefined) return;
  const message = `Expected ${empty.path} to be a schema of which there are values, and of each of its alternatives`;
  const why = `no number lies within its bounds, or it requires itself, or more than ${DEEPEST} values within each other`;
  throw new HqqError('ERR_INVALID_OPTION', `${message}, got one that no text can be kept to: ${why}.`);
}

const KNOWN = new WeakMap<NumberKind, boolean>();

function hasNumber(kind: NumberKind): boolean {
  let known = KNOWN.get(kind);
  if (known === undefined) KNOWN.set(kind, (known = findsNumber(kind)));
  return known;
}

/** Whether a number of that kind can be written. */
function findsNumber(kind: NumberKind): boolean {
  const { min, max } = kind;
  const isOne = (text: string) => mayBegin(text, kind) && isWhole(text, kind);
  if ([0, min, max, Math.ceil(min), (min + max) / 2].some((number) => isOne(String(number)))) return true;
  const left = [''];
  for (let tried = 0; tried < MOST_TRIED; tried++) {
    const text = left.pop();
    if (text === undefined) return false;
    if (text !== '' && isWhole(text, kind)) return true;
    for (const char of '-.9876543210') if (mayBegin(text + char, kind)) left.push(text + char);
  }
  return false;
}
