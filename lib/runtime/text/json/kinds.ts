import { type Steps, sortSteps } from '../../../files/event-loop.js';
import { Literals } from './literals.js';
import type { NumberKind } from './numbers.js';

/** What a value may be, one of them; made when a text comes to it, since a schema may refer to itself. */
export type Choice = () => readonly Kind[];

/** One kind of value. */
export type Kind = LiteralKind | StringKind | NumberKind | ObjectKind | ArrayKind;

/** One of some texts. */
export interface LiteralKind {
  readonly kind: 'literal';
  readonly texts: readonly string[];
  readonly literals: Literals;
}

export interface StringKind {
  readonly kind: 'string';
  /** Lengths that it may have: those of one of them. */
  readonly ranges: readonly Range[];
}

export interface Range {
  readonly min: number;
  readonly max: number;
}

export interface ObjectKind {
  readonly kind: 'object';
  readonly properties: ReadonlyMap<string, Choice>;
  /** Their names as they are written after the first quotation mark. */
  readonly names: Literals;
  readonly required: ReadonlySet<string>;
  /** What values of other properties may be; undefined: there are none. */
  readonly others: Choice | undefined;
}

export interface ArrayKind {
  readonly kind: 'array';
  readonly prefix: readonly Choice[];
  /** What comes after the prefix; undefined: nothing. */
  readonly items: Choice | undefined;
  readonly min: number;
  readonly max: number;
}

export function literalKind(texts: readonly string[]): LiteralKind {
  return { kind: 'literal', texts, literals: Literals.of(texts) };
}

export function objectKind(given: Omit<ObjectKind, 'kind' | 'names'>): ObjectKind {
  const names = Literals.of(given.properties.keys(), (name) => JSON.stringify(name).slice(1));
  return { kind: 'object', ...given, names };
}

/** Literals that a value may be one of: those of a step of a text are looked at in one turn of the event loop. */
export const MOST_LITERALS = 10_000;

/**
 * The same values in fewer kinds, so that there are fewer ways to read one: one kind of literals, one of strings, no number twice.
 *
 * @returns undefined where these are more than `MOST_LITERALS`.
 */
export function* fewest(kinds: ReadonlySet<Kind>): Steps<readonly Kind[] | undefined> {
  if (kinds.size < 2) return [...kinds];
  const of = <K extends Kind['kind']>(...names: K[]) =>
    [...kinds].filter((kind): kind is Extract<Kind, { kind: K }> => (names as string[]).includes(kind.kind));
  const literals = yield* joinedLiterals(of('literal'));
  const strings = of('string');
  if (!literals) return undefined;
  return [
    ...literals,
    ...(strings.length > 1 ? [yield* joinedStrings(strings)] : strings),
    ...(yield* widest(of('number'))),
    ...of('object', 'array'),
  ];
}

/** How much memory a kind takes that is made of others, in entries of its lists. */
export function sizeOf(kind: Kind): number {
  if (kind.kind === 'literal') return kind.texts.length;
  return kind.kind === 'string' ? kind.ranges.length : 0;
}

function* joinedLiterals(literals: readonly LiteralKind[]): Steps<readonly LiteralKind[] | undefined> {
  if (literals.length < 2) return literals;
  const texts = new Set<string>();
  for (const kind of literals) {
    for (const text of kind.texts) texts.add(text);
    if (texts.size > MOST_LITERALS) return undefined;
    yield;
  }
  return [literalKind([...texts])];
}

/** One kind of the ranges of all, in order, none of which touches another. */
function* joinedStrings(strings: readonly StringKind[]): Steps<StringKind> {
  const ranges: Range[] = [];
  for (const range of yield* sortSteps(
    strings.flatMap((kind) => kind.ranges),
    (a, b) => a.min - b.min,
  )) {
    const last = ranges.at(-1);
    if (!last || range.min > last.max + 1) ranges.push(range);
    else ranges[ranges.length - 1] = { min: last.min, max: Math.max(last.max, range.max) };
  }
  return { kind: 'string', ranges };
}

/** Those that none of the others contains: in this order, only one before them may. */
function* widest(numbers: readonly NumberKind[]): Steps<readonly NumberKind[]> {
  const found: NumberKind[] = [];
  let [last, lastOfAll]: [NumberKind?, NumberKind?] = []; // that go the furthest, and of those that are not of integers alone
  for (const kind of yield* sortSteps(numbers, widerFirst)) {
    const within = kind.integer ? last : lastOfAll;
    if (within && within.max >= kind.max) continue;
    found.push(kind);
    if (!last || kind.max > last.max) last = kind;
    if (!kind.integer) lastOfAll = kind;
  }
  return found;
}

/** Differences of infinities are NaN, which is none. */
const widerFirst = (a: NumberKind, b: NumberKind) =>
  a.min - b.min || b.max - a.max || Number(a.integer) - Number(b.integer);
