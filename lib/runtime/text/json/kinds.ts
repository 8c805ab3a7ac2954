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

/** The same values in fewer kinds, so that there are fewer ways to read one: one kind of literals, one of strings, no number twice. */
export function fewest(kinds: readonly Kind[]): readonly Kind[] {
  if (kinds.length < 2) return kinds;
  const different = [...new Set(kinds)];
  const literals = different.filter((kind) => kind.kind === 'literal');
  const ranges = different.flatMap((kind) => (kind.kind === 'string' ? kind.ranges : []));
  const numbers: NumberKind[] = [];
  for (const kind of different) {
    if (kind.kind !== 'number' || numbers.some((other) => contains(other, kind))) continue;
    numbers.splice(0, numbers.length, ...numbers.filter((other) => !contains(kind, other)), kind);
  }
  return [
    ...(literals.length > 1 ? [literalKind([...new Set(literals.flatMap(({ texts }) => texts))])] : literals),
    ...(ranges.length > 0 ? [{ kind: 'string', ranges: joined(ranges) } as const] : []),
    ...numbers,
    ...different.filter(({ kind }) => kind === 'object' || kind === 'array'),
  ];
}

const contains = (a: NumberKind, b: NumberKind) => a.min <= b.min && a.max >= b.max && (!a.integer || b.integer);

/** Ranges in order, none of which touches another. */
function joined(ranges: readonly Range[]): readonly Range[] {
  const found: Range[] = [];
  for (const range of [...ranges].sort((a, b) => a.min - b.min)) {
    const last = found.at(-1);
    if (!last || range.min > last.max + 1) found.push(range);
    else found[found.length - 1] = { min: last.min, max: Math.max(last.max, range.max) };
  }
  return found;
}
