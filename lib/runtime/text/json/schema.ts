import { atOnce, type Steps } from '../../../files/event-loop.js';
import { show } from '../../../messages/errors.js';
import { invalid, numberKind, range, type Schema } from './bounds.js';
import {
  type ArrayKind,
  type Choice,
  fewest,
  type Kind,
  literalKind,
  MOST_LITERALS,
  type ObjectKind,
  objectKind,
  sizeOf,
} from './kinds.js';
import { demandValues } from './values.js';

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

/** Entries of a list, or names in an object. */
const MOST_LISTED = MOST_LITERALS;

/** Alternatives, their literals and lengths, of all schemas in a schema: those that hold others' list them again. */
const MOST_IN_ALL = 10 * MOST_LISTED;

/** What is done of a list between turns. */
const PIECE = 256;

const literals = (values: readonly unknown[]): Kind => literalKind(values.map((value) => JSON.stringify(value)));

/** Makes something of each of a list. */
function* each<T, U>(list: readonly T[], make: (one: T) => U): Steps<U[]> {
  const made: U[] = [];
  for (const [i, one] of list.entries()) {
    if (i % PIECE === PIECE - 1) yield;
    made.push(make(one));
  }
  return made;
}

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
  return atOnce(schemaSteps(schema));
}

/** The same in steps: clients send long ones. */
export function* schemaSteps(schema: unknown): Steps<Choice> {
  const reader = new SchemaReader(schema);
  const { choice } = reader.read(schema, 'schema', 0);
  yield* reader.readAll();
  yield* demandValues(reader.all, ANY);
  if (choice().every(({ kind }) => kind === 'object' || kind === 'array')) return choice;
  throw invalid(
    'Expected the schema to be of an object or a list: a text ends with its value, and other values have no end.',
  );
}

/** A schema within a schema. */
interface Part {
  readonly schema: Schema;
  readonly path: string;
  readonly depth: number;
  /** What it means, once it was read. */
  readonly choice: Choice;
  kinds: readonly Kind[] | undefined;
  /** Whether it is being read. */
  under: boolean;
}

class SchemaReader {
  readonly #root: unknown;
  readonly #known = new Map<object, Part>();
  readonly #counted = new Set<Kind>();
  #size = 0;
  /** All that there are, in the order in which they were come to. */
  readonly all: Part[] = [];

  constructor(root: unknown) {
    this.#root = root;
  }

  /** Looks at all of it, so that what is wrong with it is told at once. */
  *readAll(): Steps<void> {
    for (const part of this.all) {
      yield* this.#read(part); // more may come meanwhile
      yield;
    }
  }

  /** @param depth Schemas that were gone through on the way, without a value between them. */
  read(schema: unknown, path: string, depth: number): Pick<Part, 'choice'> {
    return schema === true ? { choice: ANY } : this.#partOf(schema, path, depth);
  }

  #partOf(schema: unknown, path: string, depth: number): Part {
    if (!isObject(schema)) throw invalid(`Expected ${path} to be a JSON schema, got ${show(schema)}.`);
    const known = this.#known.get(schema);
    if (known) return known;
    if (this.#known.size === MOST_SCHEMAS) throw invalid(`Expected a schema of at most ${MOST_SCHEMAS} schemas.`);
    const part: Part = { schema, path, depth, choice: () => part.kinds!, kinds: undefined, under: false };
    this.#known.set(schema, part);
    this.all.push(part);
    return part;
  }

  *#read(part: Part): Steps<readonly Kind[]> {
    const { schema, path, depth } = part;
    if (part.kinds) return part.kinds;
    if (part.under || depth > DEEPEST) throw invalid(`Expected ${path} to be a schema that does not mean itself.`);
    part.under = true;
    const kinds = yield* fewest(new Set(yield* this.#kinds(schema, path, depth)));
    if (!kinds) throw invalid(`Expected ${path} to be one of at most ${MOST_LITERALS} literals.`);
    if (kinds.length > MOST_ALTERNATIVES)
      throw invalid(`Expected ${path} to be one of at most ${MOST_ALTERNATIVES} alternatives, got ${kinds.length}.`);
    this.#count(kinds);
    part.under = false;
    part.kinds = kinds;
    return kinds;
  }

  /** What is listed stays in memory, and a short schema may list it often. */
  #count(kinds: readonly Kind[]): void {
    this.#size += kinds.length;
    for (const kind of kinds) {
      if (this.#counted.has(kind)) continue;
      this.#counted.add(kind);
      this.#size += sizeOf(kind);
    }
    if (this.#size > MOST_IN_ALL)
      throw invalid(`Expected a schema of at most ${MOST_IN_ALL} alternatives and literals in all.`);
  }

  /** What another schema in its place means. */
  *#same(schema: unknown, path: string, depth: number): Steps<readonly Kind[]> {
    return schema === true ? ANY_KINDS : yield* this.#read(this.#partOf(schema, path, depth + 1));
  }

  *#kinds(schema: Schema, path: string, depth: number): Steps<Iterable<Kind>> {
    const unknown = Object.keys(schema).find((name) => !KEYWORDS.includes(name));
    if (unknown !== undefined) {
      const list = KEYWORDS.filter((name) => !NOTES.includes(name)).join(', ');
      throw invalid(`No text can be kept to ${path}.${unknown}. What a schema may say: ${list}.`);
    }
    const { enum: values, anyOf, oneOf, allOf, $ref, nullable } = schema;
    const or = nullable === true ? [literals([null])] : [];
    if ($ref !== undefined) return [...(yield* this.#same(this.#find($ref, path), String($ref), depth)), ...or];
    if ('const' in schema) return [literals([schema.const]), ...or];
    if (values !== undefined) {
      const listed = checkListed(list(values, `${path}.enum`), `${path}.enum`);
      return [literalKind(yield* each(listed, (value) => JSON.stringify(value))), ...or];
    }
    for (const [name, given] of Object.entries({ anyOf, oneOf, allOf })) {
      if (given === undefined) continue;
      const some = checkListed(list(given, `${path}.${name}`), `${path}.${name}`);
      if (name === 'allOf' && some.length > 1)
        throw invalid(`No text can be kept to ${path}.allOf of several schemas.`);
      const kinds = new Set<Kind>(or);
      for (const [i, one] of some.entries()) {
        for (const kind of yield* this.#same(one, `${path}.${name}.${i}`, depth)) kinds.add(kind);
        yield;
      }
      return kinds;
    }
    const { type } = schema;
    if (type === undefined && !('properties' in schema) && !('items' in schema)) return ANY_KINDS;
    const guessed = 'properties' in schema ? 'object' : 'array';
    const types = Array.isArray(type) ? checkListed(type as unknown[], `${path}.type`) : [type ?? guessed];
    const kinds: Kind[] = [];
    for (const one of new Set(types)) kinds.push(...(yield* this.#ofType(one, schema, path)));
    return [...kinds, ...or];
  }

  *#ofType(type: unknown, schema: Schema, path: string): Steps<readonly Kind[]> {
    switch (type as Type) {
      case 'object':
        return [yield* this.#object(schema, path)];
      case 'array':
        return [yield* this.#array(schema, path)];
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

  *#object(schema: Schema, path: string): Steps<ObjectKind> {
    const { properties = {}, required = [], additionalProperties = true } = schema;
    if (!isObject(properties)) throw invalid(`Expected ${path}.properties to be an object, got ${show(properties)}.`);
    if (!Array.isArray(required) || !required.every((name) => typeof name === 'string'))
      throw invalid(`Expected ${path}.required to be a list of names, got ${show(required)}.`);
    const needed = checkListed(required as string[], `${path}.required`);
    const given = checkListed(Object.entries(properties), `${path}.properties`);
    const others =
      additionalProperties === false
        ? undefined
        : this.read(additionalProperties, `${path}.additionalProperties`, 0).choice;
    const map = new Map(
      yield* each(given, ([name, value]) => [name, this.read(value, `${path}.${name}`, 0).choice] as const),
    );
    yield* each(needed, (name) => {
      if (map.has(name)) return;
      if (!others) throw invalid(`Expected ${path}.properties to have ${show(name)}, which is required.`);
      map.set(name, others);
    });
    yield;
    return objectKind({ properties: map, required: new Set(needed), others });
  }

  *#array(schema: Schema, path: string): Steps<ArrayKind> {
    const { items = true, prefixItems = [] } = schema;
    if (!Array.isArray(prefixItems)) throw invalid(`Expected ${path}.prefixItems to be a list of schemas.`);
    const listed = checkListed(prefixItems as unknown[], `${path}.prefixItems`);
    const prefix = yield* each(
      [...listed.entries()],
      ([i, one]) => this.read(one, `${path}.prefixItems.${i}`, 0).choice,
    );
    const rest = items === false ? undefined : this.read(items, `${path}.items`, 0).choice;
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

function checkListed<T>(given: readonly T[], path: string): readonly T[] {
  if (given.length <= MOST_LISTED) return given;
  throw invalid(`Expected ${path} to have at most ${MOST_LISTED} entries, got ${given.length}.`);
}

function list(value: unknown, path: string): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value as unknown[];
  throw invalid(`Expected ${path} to be a list that is not empty, got ${show(value)}.`);
}

function isObject(value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
