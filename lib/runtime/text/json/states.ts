import { isWhole, mayBegin, type NumberKind } from './numbers.js';
import type { ArrayKind, Choice, Kind, ObjectKind } from './schema.js';

/** An object or a list that is open. */
interface Frame {
  readonly kind: ObjectKind | ArrayKind;
  /** What it lies in. */
  readonly outer: Frame | undefined;
  readonly depth: number;
  /** Properties that have come, of those that have names in the schema. */
  readonly seen: readonly string[];
  /** Items that have begun. */
  readonly count: number;
}

/** One way to read a text so far. */
interface State {
  readonly mode: Mode;
  readonly frame: Frame | undefined;
  /** White space that came last: -1 for a space within a line, else characters from the end of the line on. In an escape: digits that are missing. */
  readonly space: number;
  /** Of a literal: what is missing. Of a number or a key: what has come. */
  readonly text: string;
  /** Characters of a string. */
  readonly length: number;
  /** Of a string or a number. */
  readonly kind: Kind | undefined;
  /** What the next value may be. */
  readonly want: Choice | undefined;
}

type Mode =
  | 'value'
  | 'first item'
  | 'first key'
  | 'key'
  | 'in key'
  | 'escape in key'
  | 'literal key'
  | 'colon'
  | 'in string'
  | 'escape in string'
  | 'number'
  | 'literal'
  | 'after'
  | 'end';

/** All ways to read a text so far: where one value may be of several kinds, it is told which only later. */
export type States = readonly State[];

/** What a line may be indented by for each value that it lies in: a model that has nothing to say would go on for ever. */
const INDENT = 4;

/** Values nested in each other. */
const DEEPEST = 64;

/** Ways to read a text that are followed. Real schemas have some, and an `enum` as many as it has values. */
const MOST_STATES = 2048;

const at = (mode: Mode, frame: Frame | undefined, more: Partial<State> = {}): State => ({
  ...{ mode, frame, space: 0, text: '', length: 0, kind: undefined, want: undefined },
  ...more,
});

/** Where a text begins that is such a value. */
export function startOf(want: Choice): States {
  return [at('value', undefined, { want })];
}

/** Whether the value is whole, and nothing may follow. */
export function isEnd(states: States): boolean {
  return states.some(({ mode }) => mode === 'end');
}

/** Where `text` leads; undefined where it makes no such value of what was there. */
export function advance(states: States, text: string): States | undefined {
  let now = states;
  for (const char of text) {
    now = now.length === 1 ? step(now[0]!, char) : now.flatMap((state) => step(state, char));
    if (now.length === 0) return undefined;
    if (now.length > MOST_STATES) now = now.slice(0, MOST_STATES);
  }
  return now;
}

const NONE: States = [];

function step(state: State, char: string): States {
  const { mode, frame, text } = state;
  switch (mode) {
    case 'in key':
    case 'in string':
      return inString(state, char);
    case 'escape in key':
    case 'escape in string':
      return escaped(state, char);
    case 'literal':
    case 'literal key': {
      const rest = withoutFirst(text, char);
      if (rest === undefined) return NONE;
      if (rest !== '') return [{ ...state, text: rest }];
      return mode === 'literal' ? [ended(frame)] : [at('colon', frame, { want: state.want })];
    }
    case 'number': {
      const kind = state.kind as NumberKind;
      if (mayBegin(text + char, kind)) return [{ ...state, text: text + char }];
      return isWhole(text, kind) ? step(ended(frame), char) : NONE;
    }
  }
  if (char === ' ' || char === '\n' || char === '\r' || char === '\t') {
    const space = moreSpace(state, char);
    return space === undefined ? NONE : [{ ...state, space }];
  }
  switch (mode) {
    case 'value':
      return begin(char, state.want!, frame);
    case 'first key':
      return char === '}' ? close(frame!, 'object') : char === '"' ? keys(frame!) : NONE;
    case 'key':
      return char === '"' ? keys(frame!) : NONE;
    case 'colon':
      return char === ':' ? [at('value', frame, { want: state.want })] : NONE;
    case 'first item':
      return char === ']' ? close(frame!, 'array') : item(frame!).flatMap((value) => step(value, char));
    case 'after':
      if (char === ',' && state.space > 0) return NONE;
      if (char === ',')
        return frame!.kind.kind === 'array' ? item(frame!) : hasMore(frame!) ? [at('key', frame)] : NONE;
      return char === '}' ? close(frame!, 'object') : char === ']' ? close(frame!, 'array') : NONE;
    default:
      return NONE;
  }
}

/** As JSON is written: a space within a line, or the end of a line and what the next is indented by. */
function moreSpace({ mode, frame, space }: State, char: string): number | undefined {
  if (mode === 'end') return undefined;
  if (char === '\n') {
    const within = mode === 'colon' || (mode === 'value' && frame?.kind.kind === 'object');
    // After a value only what closes comes on a line of its own.
    const open = mode === 'after' && close(frame!, frame!.kind.kind).length === 0;
    return within || open || space > 0 ? undefined : 1;
  }
  if (space === 0) return -1;
  return space > 0 && space <= INDENT * (frame?.depth ?? 0) ? space + 1 : undefined;
}

const isHex = (char: string) => /^[0-9a-fA-F]$/.test(char);

function inString(state: State, char: string): States {
  const { mode, frame, text, length } = state;
  const key = mode === 'in key';
  const { min = 0, max = Infinity } = state.kind?.kind === 'string' ? state.kind : {};
  if (char === '"') {
    if (!key) return length >= min ? [ended(frame)] : NONE;
    const kind = frame!.kind as ObjectKind;
    // Names that the schema has are read as literals.
    if (kind.properties.size > 0 && kind.properties.has(JSON.parse(`"${text}"`) as string)) return NONE;
    return [at('colon', frame, { want: kind.others })];
  }
  if (char < ' ' || length >= max) return NONE;
  // What a key is matters only where it might be one of the schema's.
  const kept = key && (frame!.kind as ObjectKind).properties.size > 0 ? text + char : text;
  if (char === '\\') return [{ ...state, mode: key ? 'escape in key' : 'escape in string', text: kept }];
  return [{ ...state, text: kept, length: length + 1 }];
}

function escaped(state: State, char: string): States {
  const { mode, frame, text, length } = state;
  const back = mode === 'escape in key' ? 'in key' : 'in string';
  const kept = back === 'in key' && (frame!.kind as ObjectKind).properties.size > 0 ? text + char : text;
  const missing = state.space;
  if (missing > 0) {
    if (!isHex(char)) return NONE;
    if (missing > 1) return [{ ...state, text: kept, space: missing - 1 }];
    return [{ ...state, mode: back, text: kept, space: 0, length: length + 1 }];
  }
  if (char === 'u') return [{ ...state, text: kept, space: 4 }];
  return '"\\/bfnrt'.includes(char) ? [{ ...state, mode: back, text: kept, length: length + 1 }] : NONE;
}

/** What is left of a literal after a character. What tokens may have in parts alone may be written as escapes. */
function withoutFirst(text: string, char: string): string | undefined {
  const first = String.fromCodePoint(text.codePointAt(0)!);
  if (char === first) return text.slice(first.length);
  if (char !== '\\' || first < '\u0080') return undefined;
  const units = Array.from({ length: first.length }, (_, i) => first.charCodeAt(i).toString(16).padStart(4, '0'));
  return (
    units
      .map((digits) => `\\u${digits}`)
      .join('')
      .slice(1) + text.slice(first.length)
  );
}

function begin(char: string, want: Choice, frame: Frame | undefined): States {
  const states: State[] = [];
  for (const kind of want()) {
    switch (kind.kind) {
      case 'literal':
        if (kind.text[0] === char)
          states.push(kind.text.length > 1 ? at('literal', frame, { text: kind.text.slice(1) }) : ended(frame));
        break;
      case 'string':
        if (char === '"') states.push(at('in string', frame, { kind }));
        break;
      case 'number':
        if (mayBegin(char, kind)) states.push(at('number', frame, { kind, text: char }));
        break;
      default: {
        const depth = (frame?.depth ?? 0) + 1;
        const list = kind.kind === 'array';
        if (char !== (list ? '[' : '{') || depth > DEEPEST) break;
        states.push(at(list ? 'first item' : 'first key', { kind, outer: frame, depth, seen: [], count: 0 }));
      }
    }
  }
  return states;
}

/** After the quotation mark of a key: those that may come. */
function keys(frame: Frame): States {
  const { properties, others } = frame.kind as ObjectKind;
  const states = others ? [at('in key', frame)] : [];
  for (const [name, want] of properties) {
    if (frame.seen.includes(name)) continue;
    const own = { ...frame, seen: [...frame.seen, name] };
    states.push(at('literal key', own, { text: JSON.stringify(name).slice(1), want }));
  }
  return states;
}

function hasMore({ kind, seen }: Frame): boolean {
  const { properties, others } = kind as ObjectKind;
  return others !== undefined || seen.length < properties.size;
}

/** The next item, if there may be one. */
function item(frame: Frame): States {
  const { prefix, items, max } = frame.kind as ArrayKind;
  const want = prefix[frame.count] ?? items;
  if (frame.count >= max || !want) return NONE;
  return [at('value', { ...frame, count: frame.count + 1 }, { want })];
}

function close(frame: Frame, kind: 'object' | 'array'): States {
  const { kind: own, seen, count } = frame;
  if (own.kind !== kind) return NONE;
  const whole = own.kind === 'array' ? count >= own.min : [...own.required].every((name) => seen.includes(name));
  return whole ? [ended(frame.outer)] : NONE;
}

function ended(frame: Frame | undefined): State {
  return frame ? at('after', frame) : at('end', undefined);
}
