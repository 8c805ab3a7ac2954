import type { Steps } from '../../../files/event-loop.js';
import { HqqError } from '../../../messages/errors.js';
import type { Choice, Kind } from './kinds.js';
import { isWhole, mayBegin, type NumberKind } from './numbers.js';

/** Values nested in each other. */
export const DEEPEST = 64;

/** Beginnings of numbers that are tried. */
const MOST_TRIED = 2000;

/** A schema as it was read, and where it stands. */
interface Read {
  readonly choice: Choice;
  readonly path: string;
}

/** What a kind lacks before there are values of it, and whose kind it is. */
interface Lack {
  readonly of: Choice[];
  count: number;
}

/**
 * Refuses schemas that no value is of, or one of whose alternatives none is of: a text that has begun with it could not be ended.
 * Takes time as the schemas are long, however they lie within each other: clients send them.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function* demandValues(schemas: readonly Read[], any: Choice): Steps<void> {
  const lacks = new Map<Kind, Lack>();
  const waiting = new Map<Choice, Lack[]>();
  let ready: Lack[] = [];
  for (const { choice } of schemas) {
    yield;
    for (const kind of choice()) {
      const known = lacks.get(kind);
      known?.of.push(choice);
      if (known) continue;
      if (kind.kind === 'number' && !findsNumber(kind))
        throw noValues(schemas.findLast((one) => one.choice().includes(kind))!);
      const needed = neededBy(kind).filter((one) => one !== any);
      const lack = { of: [choice], count: needed.length };
      lacks.set(kind, lack);
      for (const one of needed) {
        const others = waiting.get(one);
        if (others) others.push(lack);
        else waiting.set(one, [lack]);
      }
      if (lack.count === 0) ready.push(lack);
    }
  }
  // Those that have a value of at most so many values within each other.
  const done = new Set<Choice>([any]);
  for (let depth = 0; depth <= DEEPEST && ready.length > 0; depth++) {
    const found = new Set<Choice>();
    for (const { of } of ready) {
      yield;
      for (const one of of) if (!done.has(one)) found.add(one);
    }
    ready = [];
    for (const one of found) {
      yield;
      done.add(one);
      for (const lack of waiting.get(one) ?? []) {
        lack.count -= 1;
        if (lack.count === 0) ready.push(lack);
      }
    }
  }
  const empty = schemas.find(({ choice }) => !done.has(choice));
  if (!empty) return;
  const cause = causeOf(empty.choice, done);
  throw noValues(schemas.find(({ choice }) => choice === cause)!);
}

/** What there must be values of for one of that kind, once for each. */
function neededBy(kind: Kind): readonly Choice[] {
  if (kind.kind === 'object') return [...kind.required].map((name) => kind.properties.get(name)!);
  if (kind.kind !== 'array') return [];
  const { prefix, items, min } = kind;
  return [...prefix.slice(0, min), ...(min > prefix.length ? [items!] : [])];
}

/** The innermost choice that leaves one without values: one that requires itself, or that has them, but too deep within each other. */
function causeOf(choice: Choice, done: ReadonlySet<Choice>): Choice {
  const seen = new Set<Choice>();
  let [cause, next]: [Choice, Choice | undefined] = [choice, choice];
  while (next && !seen.has(next)) {
    seen.add(next);
    cause = next;
    next = neededBy(cause()[0]!).find((one) => !done.has(one)); // the other alternatives lack something, too
  }
  return cause;
}

function noValues({ path }: Read): HqqError {
  const message = `Expected ${path} to be a schema of which there are values, and of each of its alternatives`;
  const why = `no number lies within its bounds, or it requires itself, or more than ${DEEPEST} values within each other`;
  return new HqqError('ERR_INVALID_OPTION', `${message}, got one that no text can be kept to: ${why}.`);
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
