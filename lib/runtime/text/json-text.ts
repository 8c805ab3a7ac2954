/** Where in a JSON text one is. */
export interface JsonState {
  readonly mode: Mode;
  /** What is open: `{` and `[`, outermost first. */
  readonly stack: string;
  /** Of a literal, what is missing; of `\u`, its digits as zeros. */
  readonly rest: string;
  /** Characters of white space that came last. */
  readonly space: number;
}

type Mode =
  | 'start' // of the whole: an object
  | 'value'
  | 'first item'
  | 'first key'
  | 'key'
  | 'in key'
  | 'escape in key'
  | 'colon'
  | 'in string'
  | 'escape in string'
  | 'minus'
  | 'zero'
  | 'digits'
  | 'point'
  | 'fraction'
  | 'exponent'
  | 'sign'
  | 'power'
  | 'literal'
  | 'after'
  | 'end';

export const JSON_START: JsonState = { mode: 'start', stack: '', rest: '', space: 0 };

/** White space in a row: a model that has nothing to say would go on with it for ever. */
const MOST_SPACE = 24;

/** Values nested in each other. */
const DEEPEST = 64;

const LITERALS: Readonly<Record<string, string>> = { t: 'rue', f: 'alse', n: 'ull' };

/** Modes in which a number may end, and what may come in it. */
const NUMBERS: Readonly<Partial<Record<Mode, (char: string) => Mode | undefined>>> = {
  minus: (c) => (c === '0' ? 'zero' : isDigit(c) ? 'digits' : undefined),
  zero: (c) => (c === '.' ? 'point' : isE(c) ? 'exponent' : undefined),
  digits: (c) => (isDigit(c) ? 'digits' : c === '.' ? 'point' : isE(c) ? 'exponent' : undefined),
  point: (c) => (isDigit(c) ? 'fraction' : undefined),
  fraction: (c) => (isDigit(c) ? 'fraction' : isE(c) ? 'exponent' : undefined),
  exponent: (c) => (c === '+' || c === '-' ? 'sign' : isDigit(c) ? 'power' : undefined),
  sign: (c) => (isDigit(c) ? 'power' : undefined),
  power: (c) => (isDigit(c) ? 'power' : undefined),
};
const WHOLE_NUMBERS: ReadonlySet<Mode> = new Set<Mode>(['zero', 'digits', 'fraction', 'power']);

const isDigit = (char: string) => char >= '0' && char <= '9';
const isE = (char: string) => char === 'e' || char === 'E';

/** Where `text` leads; undefined where it makes no JSON object of what was there. */
export function advanceJson(state: JsonState, text: string): JsonState | undefined {
  let next: JsonState | undefined = state;
  for (const char of text) {
    next = step(next, char);
    if (next === undefined) return undefined;
  }
  return next;
}

function step(state: JsonState, char: string): JsonState | undefined {
  const { mode, stack } = state;
  const go = (to: Mode, more: Partial<JsonState> = {}): JsonState => ({ mode: to, stack, rest: '', space: 0, ...more });
  if (mode === 'in key' || mode === 'in string') {
    if (char === '"') return go(mode === 'in key' ? 'colon' : 'after');
    if (char === '\\') return go(mode === 'in key' ? 'escape in key' : 'escape in string');
    return char < ' ' ? undefined : go(mode);
  }
  if (mode === 'escape in key' || mode === 'escape in string') {
    const back = mode === 'escape in key' ? 'in key' : 'in string';
    if (state.rest !== '') {
      if (!/[0-9a-fA-F]/.test(char)) return undefined;
      return state.rest.length === 1 ? go(back) : go(mode, { rest: state.rest.slice(1) });
    }
    if (char === 'u') return go(mode, { rest: '0000' });
    return '"\\/bfnrt'.includes(char) ? go(back) : undefined;
  }
  if (mode === 'literal') {
    if (state.rest[0] !== char) return undefined;
    return state.rest.length === 1 ? go('after') : go('literal', { rest: state.rest.slice(1) });
  }
  const number = NUMBERS[mode];
  if (number) {
    const to = number(char);
    if (to) return go(to);
    return WHOLE_NUMBERS.has(mode) ? step(go('after'), char) : undefined;
  }
  if (char === ' ' || char === '\n' || char === '\r' || char === '\t') {
    const space = state.space + 1;
    return mode === 'end' || space > MOST_SPACE ? undefined : { ...state, space };
  }
  switch (mode) {
    case 'start':
      return char === '{' ? go('first key', { stack: '{' }) : undefined;
    case 'first key':
      return char === '}' ? close(state, '{') : char === '"' ? go('in key') : undefined;
    case 'key':
      return char === '"' ? go('in key') : undefined;
    case 'colon':
      return char === ':' ? go('value') : undefined;
    case 'first item':
      return char === ']' ? close(state, '[') : beginValue(char, go);
    case 'value':
      return beginValue(char, go);
    case 'after':
      if (char === ',') return go(stack.endsWith('{') ? 'key' : 'value');
      return char === '}' ? close(state, '{') : char === ']' ? close(state, '[') : undefined;
    default:
      return undefined;
  }

  function beginValue(first: string, to: typeof go): JsonState | undefined {
    if (first === '"') return to('in string');
    if (first === '{' || first === '[') {
      if (stack.length === DEEPEST) return undefined;
      return to(first === '{' ? 'first key' : 'first item', { stack: stack + first });
    }
    if (first === '-') return to('minus');
    if (isDigit(first)) return to(first === '0' ? 'zero' : 'digits');
    const rest = LITERALS[first];
    return rest === undefined ? undefined : to('literal', { rest });
  }
}

function close({ stack }: JsonState, open: string): JsonState | undefined {
  if (!stack.endsWith(open)) return undefined;
  const left = stack.slice(0, -1);
  return { mode: left === '' ? 'end' : 'after', stack: left, rest: '', space: 0 };
}

/** Keeps a text to one JSON object: says which tokens may come next. */
export class JsonText {
  readonly #texts: readonly string[];
  #state = JSON_START;

  /** @param texts Of every token. Special ones are empty, and never come. */
  constructor(texts: readonly string[]) {
    this.#texts = texts;
  }

  /** Whether the object is whole. */
  get done(): boolean {
    return this.#state.mode === 'end';
  }

  /** Whether a token may come next. */
  accepts(id: number): boolean {
    const text = this.#texts[id];
    return text !== undefined && text !== '' && advanceJson(this.#state, text) !== undefined;
  }

  /** A token has come that may. */
  push(id: number): void {
    this.#state = advanceJson(this.#state, this.#texts[id]!)!;
  }
}
