import type { ChatTemplate } from './chat-template.js';

/** How a model writes down calls of tools. `hermes`: `<tool_call>{"name", "arguments"}</tool_call>`; `llama3`: `{"name", "parameters"}` alone. */
export type ToolForm = 'hermes' | 'llama3';

/** A call that a model asks for. */
export interface ToolCall {
  readonly name: string;
  /** JSON of an object. */
  readonly arguments: string;
}

/** What has come of a text: what is said, and what is to be called. */
export interface ParsedText {
  readonly text: string;
  readonly calls: readonly ToolCall[];
}

/** The form that a template tells its model to write calls in; undefined where it is none that is known. */
export function toolFormOf({ template, withTools = template }: ChatTemplate): ToolForm | undefined {
  const says = (...texts: string[]) => texts.every((text) => withTools.includes(text));
  // Others put XML between the same tags.
  if (says('<tool_call>', '</tool_call>', 'arguments') && !says('<function=') && !says('<arg_key>')) return 'hermes';
  return says('"parameters": dictionary of argument name') || says('"name": function name, "parameters"')
    ? 'llama3'
    : undefined;
}

const OPEN = '<tool_call>';
const CLOSE = '</tool_call>';

/** How much of the end of a text is white space, and what may become a mark after it. In time that grows with the text alone. */
function heldLength(text: string): number {
  const at = text.lastIndexOf('<');
  const marked = at >= 0 && OPEN.startsWith(text.slice(at)) ? at : text.length;
  return text.length - text.slice(0, marked).trimEnd().length;
}

/** Takes calls of tools out of a text as it comes. What is no call of one of the tools stays text. */
export class ToolCallReader {
  readonly #form: ToolForm;
  readonly #names: ReadonlySet<string>;
  #held = '';
  #begun = false;
  /** Whether a call came last. */
  #called = false;
  #found = 0;
  /** Of a call that has begun in what is held: how far its end was looked for, and whether that is within a string. */
  #looked = 0;
  #quoted = false;

  /** @param names Of the tools that there are. */
  constructor(form: ToolForm, names: ReadonlySet<string>) {
    this.#form = form;
    this.#names = names;
  }

  /** Calls so far. */
  get found(): number {
    return this.#found;
  }

  /** Some more of the text. */
  push(text: string): ParsedText {
    this.#held += text;
    return this.#form === 'hermes' ? this.#marked(false) : this.#alone(false);
  }

  /** What is left when no more comes. */
  end(): ParsedText {
    return this.#form === 'hermes' ? this.#marked(true) : this.#alone(true);
  }

  /** Calls between marks; text goes on before and after them. */
  #marked(end: boolean): ParsedText {
    let said = '';
    const calls: ToolCall[] = [];
    if (this.#called) this.#held = this.#held.trimStart();
    if (this.#held !== '') this.#called = false;
    for (;;) {
      const open = this.#held.indexOf(OPEN);
      if (open < 0) break;
      const close = this.#closeOf(open + OPEN.length, end);
      if (close < 0 && !end) {
        // What comes before it is said already, but for white space, which stays where no call comes.
        const before = this.#held.slice(0, open).trimEnd();
        said += before;
        this.#held = this.#held.slice(before.length);
        this.#looked -= before.length;
        return { text: said, calls };
      }
      this.#looked = 0;
      const past = close < 0 ? this.#held.length : close + CLOSE.length;
      const call = this.#callOf(this.#held.slice(open + OPEN.length, close < 0 ? past : close), 'arguments');
      const before = this.#held.slice(0, open);
      if (call) calls.push(call);
      said += call ? before.trimEnd() : this.#held.slice(0, past);
      this.#held = call ? this.#held.slice(past).trimStart() : this.#held.slice(past);
      this.#called = call !== undefined && this.#held === '';
    }
    const space = () => this.#held.length - this.#held.trimEnd().length;
    const keep = end ? (this.#found > 0 ? space() : 0) : heldLength(this.#held);
    said += this.#held.slice(0, this.#held.length - keep);
    this.#held = end ? '' : this.#held.slice(this.#held.length - keep);
    return { text: said, calls };
  }

  /**
   * Where the mark after a call is whose JSON begins at `from`: the first that is not within a string. At the end, and where that is no
   * JSON, the first of all. -1: it has not come. Each character is looked at once.
   */
  #closeOf(from: number, end: boolean): number {
    if (this.#looked < from) [this.#looked, this.#quoted] = [from, false];
    for (; this.#looked < this.#held.length; this.#looked++) {
      const char = this.#held[this.#looked];
      if (char === '"') this.#quoted = !this.#quoted;
      else if (char === '\\' && this.#quoted) {
        if (this.#looked + 1 === this.#held.length) break; // what is escaped comes
        this.#looked++;
      } else if (char === '<' && !this.#quoted) {
        const rest = this.#held.slice(this.#looked, this.#looked + CLOSE.length);
        if (!CLOSE.startsWith(rest)) continue;
        if (rest !== CLOSE) break; // the mark may be coming
        const found = this.#looked;
        return parsed(this.#held.slice(from, found)) ? found : this.#held.indexOf(CLOSE, from);
      }
    }
    return end ? this.#held.indexOf(CLOSE, from) : -1;
  }

  /** A text that is a call as a whole, or none. */
  #alone(end: boolean): ParsedText {
    const begins = this.#held.trimStart();
    if (!this.#begun && (begins === '' || begins.startsWith('{')) && !end) return { text: '', calls: [] };
    this.#begun = true; // with what is no call
    const call = end && begins.startsWith('{') ? this.#callOf(begins, 'parameters') : undefined;
    const text = call ? '' : this.#held;
    this.#held = '';
    return { text, calls: call ? [call] : [] };
  }

  #callOf(json: string, field: 'arguments' | 'parameters'): ToolCall | undefined {
    const value = parsed(json);
    const { name } = (value ?? {}) as { name?: unknown };
    if (typeof name !== 'string' || !this.#names.has(name)) return undefined;
    const given = value![field] ?? {};
    const passed = typeof given === 'string' ? parsed(given) : isObject(given) ? given : undefined;
    if (passed === undefined) return undefined;
    this.#found++;
    return { name, arguments: JSON.stringify(passed) };
  }
}

type Json = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The object that a text is; undefined where it is none. */
export function parsed(json: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(json);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
