import { HqqError, show } from '../../../messages/errors.js';
import { type ArrayKind, type Choice, fewest, type Kind, literalKind, type ObjectKind, objectKind } from './kinds.js';
import { NUMBER, type NumberKind } from './numbers.js';
import { demandValues } from './values.js';

type Schema = Readonly<Record<string, unknown>>;

const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const;
type Type = (typeof TYPES)[number];

/** What says nothing of which values there may be; `format` is among it, as the specification has it. */
const NOTES = ['$schema', '$id', '$comment', '$anchor', 'title', 'description', 'default', 'examples', 'format'];
const DEFINITIONS = ['$defs', 'definitions'];
const KEYWORDS: readonly string[] = [
  ...['type', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref', 'nullable'],
  ...['properties', 'required', 'additionalProperties', 'items', 'prefixItems', 'minItems', 'maxItems'],
  ...['minLength', 'maxLength', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
  ...[...NOTES, 'readOnly', 'writeOnly', 'deprecated', ...DEFINITIONS],
];

/** Schemas in a schema, and alternatives that lead to each other without a value between them. */
const MOST_SCHEMAS = 10_000;
const DEEPEST = 32;

/** Objects, lists and numbers that a value may be one of: each is a way to read a text. */
const MOST_ALTERNATIVES = 256;

const literals = (values: readonly unknown[]): Kind => literalKind(values.map((value) => JSON.stringify(value)));

/** Any value. */
const ANY: Choice = () => ANY_KINDS;
/** Any object. */
export const ANY_OBJECT: ObjectKind = objectKind({ properties: new Map(), required: new Set(), others: ANY });
const ANY_KINDS: readonly Kind[] = [
  { kind: 'string', ranges: [{ min: 0, max: Infinity }] },
  { kind: 'number', integer: false, min: -Infinity, max: Infinity },
  ANY_OBJECT,
  { kind: 'array', prefix: [], items: ANY, min: 0, max: Infinity },
  literals([true, false, null]),
];

/**
 * Reads a JSON schema whose values are objects or lists. What it says and no text can be kept to is an error, since it would be ignored.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function readSchema(schema: unknown): Choice {
  const reader = new SchemaReader(schema);
  const choice = reader.read(schema, 'schema', 0);
  reader.readAll();
  demandValues(reader.all, ANY);
  const kinds = choice();
  if (kinds.every(({ kind }) => kind === 'object' || kind === 'array')) return choice;
  throw invalid(
    'Expected the schema to be of an object or a list: a text ends with its value, and other values have no end.',
  );
}

class SchemaReader {
  readonly #root: unknown;
  readonly #known = new Map<object, Choice>();
  /** All that there are, in the order in which they were come to. */
  readonly all: { readonly choice: Choice; readonly path: string }[] = [];

  constructor(root: unknown) {
    this.#root = root;
  }

  /** Looks at all of it, so that what is wrong with it is told at once. */
  readAll(): void {
    for (const { choice } of this.all) choice(); // more may come meanwhile
  }

  /** @param depth Schemas that were gone through on the way, without a value between them. */
  read(schema: unknown, path: string, depth: number): Choice {
    if (schema === true) return ANY;
    if (!isObject(schema)) throw invalid(`Expected ${path} to be a JSON schema, got ${show(schema)}.`);
    const known = this.#known.get(schema);
    if (known) return known;
    if (this.#known.size === MOST_SCHEMAS) throw invalid(`Expected a schema of at most ${MOST_SCHEMAS} schemas.`);
    let kinds: readonly Kind[] | undefined;
    let under = false;
    const choice = () => {
      if (kinds) return kinds;
      if (under || depth > DEEPEST) throw invalid(`Expected ${path} to be a schema that does not mean itself.`);
      under = true;
      kinds = fewest(this.#kinds(schema, path, depth));
      under = false;
      if (kinds.length > MOST_ALTERNATIVES)
        throw invalid(`Expected ${path} to be one of at most ${MOST_ALTERNATIVES} alternatives, got ${kinds.length}.`);
      return kinds;
    };
    this.#known.set(schema, choice);
    this.all.push({ choice, path });
    return choice;
  }

  #kinds(schema: Schema, path: string, depth: number): readonly Kind[] {
    const unknown = Object.keys(schema).find((name) => !KEYWORDS.includes(name));
    if (unknown !== undefined) {
      const list = KEYWORDS.filter((name) => !NOTES.includes(name)).join(', ');
      throw invalid(`No text can be kept to ${path}.${unknown}. What a schema may say: ${list}.`);
    }
    const inner = (name: string, value: unknown) => this.read(value, `${path}.${name}`, depth + 1)();
    const { enum: values, anyOf, oneOf, allOf, $ref, nullable } = schema;
    const or = nullable === true ? [literals([null])] : [];
    if ($ref !== undefined) return [...this.read(this.#find($ref, path), String($ref), depth + 1)(), ...or];
    if ('const' in schema) return [literals([schema.const]), ...or];
    if (values !== undefined) return [literals(list(values, `${path}.enum`)), ...or];
    for (const [name, given] of Object.entries({ anyOf, oneOf, allOf })) {
      if (given === undefined) continue;
      const some = list(given, `${path}.${name}`);
      if (name === 'allOf' && some.length > 1)
        throw invalid(`No text can be kept to ${path}.allOf of several schemas.`);
      return [...some.flatMap((one, i) => inner(`${name}.${i}`, one)), ...or];
    }
    const { type } = schema;
    if (type === undefined && !('properties' in schema) && !('items' in schema)) return ANY_KINDS;
    const guessed = 'properties' in schema ? 'object' : 'array';
    const types = Array.isArray(type) ? (type as unknown[]) : [type ?? guessed];
    return [...types.flatMap((one) => this.#ofType(one, schema, path)), ...or];
  }

  #ofType(type: unknown, schema: Schema, path: string): readonly Kind[] {
    switch (type as Type) {
      case 'object':
        return [this.#object(schema, path)];
      case 'array':
        return [this.#array(schema, path)];
      case 'string':
        return [{ kind: 'string', ranges: [range(schema, path, 'minLength', 'maxLength')] }];
      case 'number':
      case 'integer':
        return [numberKind(schema, path, type === 'integer')];
      case 'boolean':
        return [literals([true, false])];
      case 'null':
        return [literals([null])];
      default:
        throw invalid(`Expected ${path}.type to be one of ${TYPES.join(', ')}, got ${show(type)}.`);
    }
  }

  #object(schema: Schema, path: string): ObjectKind {
    const { properties = {}, required = [], additionalProperties = true } = schema;
    if (!isObject(properties)) throw invalid(`Expected ${path}.properties to be an object, got ${show(properties)}.`);
    const needed = required as unknown[];
    if (!Array.isArray(required) || !needed.every((name) => typeof name === 'string'))
      throw invalid(`Expected ${path}.required to be a list of names, got ${show(required)}.`);
    const others =
      additionalProperties === false ? undefined : this.read(additionalProperties, `${path}.additionalProperties`, 0);
    const map = new Map(
      Object.entries(properties).map(([name, value]) => [name, this.read(value, `${path}.${name}`, 0)]),
    );
    for (const name of required as string[]) {
      if (map.has(name)) continue;
      if (!others) throw invalid(`Expected ${path}.properties to have ${show(name)}, which is required.`);
      map.set(name, others);
    }
    return objectKind({ properties: map, required: new Set(required as string[]), others });
  }

  #array(schema: Schema, path: string): ArrayKind {
    const { items = true, prefixItems = [] } = schema;
    if (!Array.isArray(prefixItems)) throw invalid(`Expected ${path}.prefixItems to be a list of schemas.`);
    const prefix = prefixItems.map((one, i) => this.read(one, `${path}.prefixItems.${i}`, 0));
    const rest = items === false ? undefined : this.read(items, `${path}.items`, 0);
    const { min, max } = range(schema, path, 'minItems', 'maxItems');
    const most = rest ? max : Math.min(max, prefix.length);
    if (min > most) throw invalid(`Expected ${path} to allow ${min} items, which minItems asks for.`);
    return { kind: 'array', prefix, items: rest, min, max: most };
  }

  /** What a reference in the schema means: `#`, or `#/` and names. */
  #find(ref: unknown, path: string): unknown {
    let found = this.#root;
    const names = typeof ref === 'string' && /^#(\/|$)/.test(ref) ? ref.split('/').slice(1) : undefined;
    for (const name of names ?? []) {
      const key = decoded(name)?.replaceAll('~1', '/').replaceAll('~0', '~');
      found = key !== undefined && isObject(found) && Object.hasOwn(found, key) ? found[key] : undefined;
    }
    if (names && found !== undefined) return found;
    throw invalid(
      `Expected ${path}.$ref to lead to a schema within this one, such as "#/$defs/name", got ${show(ref)}.`,
    );
  }
}

/** A part of a URI; undefined where its `%` make no UTF-8. */
function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

function numberKind(schema: Schema, path: string, integer: boolean): NumberKind {
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

function range(schema: Schema, path: string, least: string, most: string): { min: number; max: number } {
  const read = (name: string, none: number): number => {
    const value = schema[name] ?? none;
    if (value === Infinity || (Number.isSafeInteger(value) && (value as number) >= 0)) return value as number;
    throw invalid(`Expected ${path}.${name} to be an integer, at least 0, got ${show(value)}.`);
  };
  const [min, max] = [read(least, 0), read(most, Infinity)];
  if (min > max) throw invalid(`Expected ${path}.${least} to be at most ${most}, got ${min} and ${max}.`);
  return { min, max };
}

function list(value: unknown, path: string): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value as unknown[];
  throw invalid(`Expected ${path} to be a list that is not empty, got ${show(value)}.`);
}

function isObject(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(message: string): HqqError {
  return new HqqError('ERR_INVALID_OPTION', message);
}
