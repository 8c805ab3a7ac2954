import { idOf } from './identity.js';
import type { ArrayKind, Choice, Kind, ObjectKind } from './kinds.js';
import type { Literals } from './literals.js';
import { isWhole, mayBegin, type NumberKind } from './numbers.js';
import { DEEPEST } from './values.js';

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
  /** Of a number or a key: what has come. */
  readonly text: string;
  /** What is missing of literals or of a key that is one. */
  readonly literals: Literals | undefined;
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

/** Ways to read a text that are followed. Real schemas have some: as many as there are objects that may have come so far. */
const MOST_STATES = 1024;

const at = (mode: Mode, frame: Frame | undefined, more: Partial<State> = {}): State => ({
  ...{ mode, frame, space: 0, text: '', literals: undefined, length: 0, kind: undefined, want: undefined },
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
    now = now.length === 1 ? step(now[0]!, char) : stepAll(now, char);
    if (now.length === 0) return undefined;
  }
  return now;
}

/** Whether `text` leads anywhere: told by the first way to read it, where `advance` goes all of them. */
export function mayCome(states: States, text: string): boolean {
  return states.some((state) => advance([state], text) !== undefined);
}

/** Whether any `length` characters may come that neither end a string nor escape. */
export function takesPlain(states: States, length: number): boolean {
  return states.some(({ mode, kind, frame, length: before }) => {
    if (mode === 'in key') return (frame!.kind as ObjectKind).properties.size === 0;
    return mode === 'in string' && kind?.kind === 'string' && before + length <= kind.ranges.at(-1)!.max;
  });
}

const NONE: States = [];

/** All that a character leads to, each once: else each value that may be read in two ways would double them. */
function stepAll(states: States, char: string): States {
  const found = new Map<string, State>();
  for (const state of states) {
    for (const next of step(state, char)) {
      found.set(keyOf(next), next);
      if (found.size === MOST_STATES) return [...found.values()];
    }
  }
  return [...found.values()];
}

/** The same of states that are equal. */
function keyOf({ mode, frame, space, text, literals, length, kind, want }: State): string {
  return `${mode} ${frame && frameKey(frame)} ${space} ${idOf(literals)} ${length} ${idOf(kind)} ${idOf(want)} ${text}`;
}

const FRAME_KEYS = new WeakMap<Frame, string>();

function frameKey(frame: Frame): string {
  let key = FRAME_KEYS.get(frame);
  if (key === undefined) {
    const { kind, outer, seen, count } = frame;
    key = `${outer ? frameKey(outer) : ''}/${idOf(kind)},${count},${JSON.stringify(seen)}`;
    FRAME_KEYS.set(frame, key);
  }
  return key;
}

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
      return literal(state.literals!.after(char), frame);
    case 'literal key':
      return literalKey(state.literals!.after(char), frame!);
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
  const ranges = state.kind?.kind === 'string' ? state.kind.ranges : undefined;
  if (char === '"') {
    if (!key) return ranges!.some(({ min, max }) => length >= min && length <= max) ? [ended(frame)] : NONE;
    const kind = frame!.kind as ObjectKind;
    // Names that the schema has are read as literals.
    if (kind.properties.size > 0 && kind.properties.has(JSON.parse(`"${text}"`) as string)) return NONE;
    return [at('colon', frame, { want: kind.others })];
  }
  if (char < ' ' || (ranges && length >= ranges.at(-1)!.max)) return NONE;
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

function literal(literals: Literals | undefined, frame: Frame | undefined): States {
  if (!literals) return NONE;
  const rest = literals.open.length > 0 ? [at('literal', frame, { literals })] : NONE;
  return literals.done === undefined ? rest : [...rest, ended(frame)];
}

/** A name that the schema has and that has not come yet. */
function literalKey(literals: Literals | undefined, frame: Frame): States {
  if (!literals) return NONE;
  const { seen } = frame;
  const name = literals.done;
  if (name === undefined)
    return literals.open.some((one) => !seen.includes(one)) ? [at('literal key', frame, { literals })] : NONE;
  if (seen.includes(name)) return NONE;
  const want = (frame.kind as ObjectKind).properties.get(name);
  return [at('colon', { ...frame, seen: [...seen, name] }, { want })];
}

function begin(char: string, want: Choice, frame: Frame | undefined): States {
  const states: State[] = [];
  for (const kind of want()) {
    switch (kind.kind) {
      case 'literal':
        states.push(...literal(kind.literals.after(char), frame));
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
  const { names, others } = frame.kind as ObjectKind;
  const states = literalKey(names, frame);
  return others ? [at('in key', frame), ...states] : states;
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
