import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { GeneratedToken } from '../runtime/text/generate.js';
import type { ToolCallReader } from '../runtime/text/tool-calls.js';
import type { IdentifiedCall, Piece, Shape, SpelledToken } from './shapes.js';

/** What a request asks for, once it is checked. */
export interface Asked {
  readonly shape: Shape;
  readonly model: string;
  /** One for each text. */
  readonly prompts: readonly (readonly number[])[];
  /** What each text's answer begins with. */
  readonly echoes: readonly string[];
  /** Prompts as the client wrote them: those that stand for several texts count once. */
  readonly promptTokens: number;
  readonly includeUsage: boolean;
  readonly stallMs: number;
  /** Reads calls of tools out of a text, where there may be such. */
  readonly readCalls: (() => ToolCallReader) | undefined;
  readonly spell: ((token: GeneratedToken) => Promise<SpelledToken>) | undefined;
}

/** What a token adds to its text. */
type Added = Pick<Piece, 'text' | 'finish' | 'calls'>;

interface Usage {
  completion: number;
  reused: number;
}

/** Takes the tokens of all texts as they come, and makes an answer of them. */
export abstract class Answer {
  protected readonly asked: Asked;
  protected readonly head: object;
  readonly #usage: Usage = { completion: 0, reused: 0 };
  readonly #readers: (ToolCallReader | undefined)[] = [];

  constructor(asked: Asked, object: string) {
    this.asked = asked;
    const { prefix } = asked.shape;
    this.head = { id: `${prefix}-${randomUUID()}`, object, created: Math.floor(Date.now() / 1000), model: asked.model };
  }

  /** A token of text `index`. Resolves when more may come. */
  async take(index: number, token: GeneratedToken): Promise<void> {
    this.#usage.completion++;
    this.#usage.reused += token.prompt?.reused ?? 0;
    await this.add(index, this.#read(index, token), await this.asked.spell?.(token));
  }

  protected abstract add(index: number, added: Added, spelled: SpelledToken | undefined): Promise<void>;

  /** Takes calls of tools out of the text. */
  #read(index: number, { text, finish = null }: Pick<GeneratedToken, 'text'> & Partial<Pick<Piece, 'finish'>>): Added {
    const reader = (this.#readers[index] ??= this.asked.readCalls?.());
    if (!reader) return { text, finish, calls: [] };
    const before = reader.found;
    const parts = [reader.push(text), ...(finish ? [reader.end()] : [])];
    const calls = parts
      .flatMap((part) => part.calls)
      .map((call, i) => ({ ...call, id: `call_${randomUUID()}`, place: before + i }));
    const said = parts.map((part) => part.text).join('');
    return { text: said, calls, finish: finish === 'stop' && reader.found > 0 ? 'tool_calls' : finish };
  }

  protected get usage(): object {
    const [{ promptTokens }, { completion, reused }] = [this.asked, this.#usage];
    return {
      prompt_tokens: promptTokens,
      completion_tokens: completion,
      total_tokens: promptTokens + completion,
      prompt_tokens_details: { cached_tokens: Math.min(reused, promptTokens) },
    };
  }
}

/** An answer in one document. */
export class WholeAnswer extends Answer {
  readonly #texts: { text: string; finish: Piece['finish']; tokens: SpelledToken[]; calls: IdentifiedCall[] }[];

  constructor(asked: Asked) {
    super(asked, asked.shape.object);
    this.#texts = asked.echoes.map((text) => ({ text, finish: null, tokens: [], calls: [] }));
  }

  protected async add(index: number, { text, finish, calls }: Added, spelled: SpelledToken | undefined): Promise<void> {
    const own = this.#texts[index]!;
    own.text += text;
    own.finish = finish;
    own.calls.push(...calls);
    if (spelled) own.tokens.push(spelled);
  }

  /** The document. */
  get document(): object {
    const { shape, spell, echoes } = this.asked;
    const choices = this.#texts.map(({ text, finish, tokens, calls }, index) =>
      shape.choice({ index, text, finish, calls, tokens: spell && tokens, offset: echoes[index]!.length }),
    );
    return { ...this.head, choices, usage: this.usage };
  }
}

/** Server-sent events: one for every token that completes some text, one with the usage if it is asked for, then `[DONE]`. */
export class StreamedAnswer extends Answer {
  readonly #raw: ServerResponse;
  readonly #begin: () => void;
  readonly #controller: AbortController;
  /** Of each text: where its next token begins, in characters. */
  readonly #offsets: (number | undefined)[] = [];
  #begun = false;

  /** @param begin Called before the first byte: until then a failure has an answer of its own. */
  constructor(asked: Asked, raw: ServerResponse, controller: AbortController, begin: () => void) {
    super(asked, asked.shape.chunkObject);
    this.#raw = raw.setMaxListeners(0); // each text of a request waits for its own turn
    this.#begin = begin;
    this.#controller = controller;
  }

  protected async add(index: number, { text, finish, calls }: Added, spelled: SpelledToken | undefined): Promise<void> {
    const { shape, echoes } = this.asked;
    if (!this.#begun) {
      this.#begun = true;
      this.#begin();
      this.#raw.writeHead(200, {
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no',
      });
    }
    let said = text;
    let offset = this.#offsets[index];
    if (offset === undefined) {
      if (shape.opening) await this.#sendChunk([shape.opening(index)], null);
      said = echoes[index]! + text;
      offset = echoes[index]!.length;
    }
    this.#offsets[index] = offset + (spelled?.text.length ?? 0);
    if (said === '' && !finish && !spelled && calls.length === 0) return;
    const tokens = spelled && [spelled];
    await this.#sendChunk([shape.chunk({ index, text: said, finish, calls, tokens, offset })], null);
  }

  /** Says that nothing comes any more. */
  async end(): Promise<void> {
    if (this.asked.includeUsage) await this.#sendChunk([], this.usage);
    await this.#send('[DONE]');
    this.#raw.end();
  }

  #sendChunk(choices: readonly object[], usage: object | null): Promise<void> {
    return this.#send(JSON.stringify({ ...this.head, choices, ...(this.asked.includeUsage ? { usage } : {}) }));
  }

  async #send(data: string): Promise<void> {
    if (this.#raw.write(`data: ${data}\n\n`)) return;
    // A client that reads slowly slows its own text down; one that does not read at all ends it.
    const { signal } = this.#controller;
    const stalled = () => this.#controller.abort(new Error('The client does not read.'));
    const timer = setTimeout(stalled, this.asked.stallMs);
    await once(this.#raw, 'drain', { signal }).finally(() => clearTimeout(timer));
  }
}
