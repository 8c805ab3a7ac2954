import type { LanguageModel } from '../runtime/model.js';
import type { ChatMessage } from '../runtime/text/chat-template.js';
import type { GeneratedToken } from '../runtime/text/generate.js';
import type { GenerateOptions } from '../runtime/text/generate-options.js';
import { readFormat, type TextFormat } from '../runtime/text/json/json-text.js';
import type { ChatTokenizer } from '../runtime/text/tokenizer.js';
import { parsed, ToolCallReader } from '../runtime/text/tool-calls.js';
import type { Asked } from './answer.js';
import { Failure } from './failure.js';
import type { Limits } from './limits.js';
import { CHAT, COMPLETION, type SpelledToken } from './shapes.js';

/** What a server needs of a model. */
export type ServedModel = Pick<
  LanguageModel,
  'config' | 'maxContext' | 'generate' | 'tokenizer' | 'chatPrompt' | 'toolForm'
> &
  Partial<Pick<LanguageModel, 'adapters'>>;

/** What both kinds of requests may say; a schema has checked it. */
interface CommonBody {
  readonly model?: string | null;
  readonly max_tokens?: number | null;
  readonly temperature?: number | null;
  readonly top_p?: number | null;
  readonly top_k?: number | null;
  readonly min_p?: number | null;
  readonly repetition_penalty?: number | null;
  readonly seed?: number | null;
  readonly n?: number | null;
  readonly stop?: string | readonly string[] | null;
  readonly stream?: boolean | null;
  readonly stream_options?: { readonly include_usage?: boolean | null } | null;
}

export interface CompletionBody extends CommonBody {
  readonly prompt: string | readonly number[] | readonly (string | readonly number[])[];
  readonly logprobs?: number | null;
  readonly echo?: boolean | null;
}

export interface ChatBody extends CommonBody {
  readonly messages: readonly (Omit<ChatMessage, 'content'> & {
    readonly content?: string | null | readonly { readonly text: string }[];
  })[];
  readonly max_completion_tokens?: number | null;
  readonly logprobs?: boolean | null;
  readonly top_logprobs?: number | null;
  readonly response_format?: {
    readonly type: 'text' | 'json_object' | 'json_schema';
    readonly json_schema?: { readonly schema?: object } | null;
  } | null;
  readonly tools?: readonly object[] | null;
  readonly tool_choice?: 'auto' | 'none' | null;
  readonly chat_template_kwargs?: Readonly<Record<string, unknown>> | null;
}

/** A request, checked and turned into ids. */
export interface Texts {
  readonly asked: Asked;
  readonly stream: boolean;
  /** Of text `index`. */
  readonly options: (index: number) => GenerateOptions;
}

/** Tokens of an answer where nothing is said: OpenAI's 16 for completions; a conversation's turn is as long as it is. */
const COMPLETION_TOKENS = 16;

/** Reads requests to one model. */
export class Requests {
  readonly #model: ServedModel;
  readonly #name: string;
  readonly #limits: Limits;

  constructor(model: ServedModel, name: string, limits: Limits) {
    this.#model = model;
    this.#name = name;
    this.#limits = limits;
  }

  async completion(body: CompletionBody): Promise<Texts> {
    this.#check(body);
    const { prompt, logprobs } = body;
    const list = typeof prompt === 'string' || typeof prompt[0] === 'number' ? [prompt] : prompt;
    const given = list as readonly (string | readonly number[])[];
    const n = body.n ?? 1;
    if (given.length * n > this.#limits.texts) {
      const message = `prompt times n is ${given.length * n} texts; at most ${this.#limits.texts} are served at once.`;
      throw new Failure(400, message, { param: 'prompt', code: 'invalid_value' });
    }
    const prompts: (readonly number[])[] = [];
    const echoes: string[] = [];
    for (const one of given) {
      const ids = typeof one === 'string' ? await this.#encode(one) : one;
      this.#checkLength(ids, 'prompt');
      const echo = body.echo ? (typeof one === 'string' ? one : await this.#decode(ids)) : '';
      for (let i = 0; i < n; i++) {
        prompts.push(ids);
        echoes.push(echo);
      }
    }
    const maxTokens = body.max_tokens ?? COMPLETION_TOKENS;
    return this.#texts(COMPLETION, body, { prompts, echoes, n, maxTokens, logprobs: logprobs ?? undefined });
  }

  async chat(body: ChatBody, signal: AbortSignal): Promise<Texts> {
    this.#check(body);
    const { tools, tool_choice, chat_template_kwargs, max_completion_tokens, top_logprobs } = body;
    if ((top_logprobs ?? undefined) !== undefined && body.logprobs !== true)
      throw new Failure(400, 'top_logprobs is only allowed when logprobs is true.', { param: 'top_logprobs' });
    const messages: ChatMessage[] = body.messages.map(({ content, ...rest }) => ({
      ...(rest as ChatMessage),
      content: Array.isArray(content)
        ? content.map(({ text }) => text).join('')
        : (content as string | null | undefined),
      ...('tool_calls' in rest && { tool_calls: withArguments(rest.tool_calls) }),
    }));
    const format = await formatOf(body.response_format, signal);
    const most = this.#mostTokens * this.#limits.tokenCharacters;
    // Whatever of it the template writes down: names, calls of tools and their descriptions are tokenized as contents are.
    for (const [param, given] of Object.entries({ messages, tools, chat_template_kwargs })) {
      const characters = given ? JSON.stringify(given).length : 0;
      if (characters > most) throw tooLong(`As JSON, ${param} has ${characters} characters; at most ${most}`, param);
    }
    const ids = await this.#chatPrompt(messages, {
      tools: tool_choice === 'none' ? undefined : (tools ?? undefined),
      templateOptions: chat_template_kwargs ?? undefined,
      maxCharacters: most,
      signal,
    });
    this.#checkLength(ids, 'messages');
    const n = body.n ?? 1;
    const maxTokens = max_completion_tokens ?? body.max_tokens ?? this.#limits.maxTokens;
    const logprobs = body.logprobs === true ? (top_logprobs ?? 0) : undefined;
    const [prompts, echoes] = [new Array<number[]>(n).fill(ids), new Array<string>(n).fill('')];
    const readCalls = tool_choice === 'none' || format ? undefined : await this.#callReader(tools ?? []);
    return this.#texts(CHAT, body, { prompts, echoes, n, maxTokens, logprobs, format, readCalls });
  }

  /** What reads calls of these tools out of a text, where the model writes them in a form that is known. */
  async #callReader(tools: readonly object[]): Promise<Asked['readCalls']> {
    const functions = tools.map((tool) => (tool as { function?: { name?: unknown } | null }).function?.name);
    const names = new Set(functions.filter((name) => typeof name === 'string'));
    const form = names.size > 0 ? await this.#model.toolForm() : undefined;
    return form && (() => new ToolCallReader(form, names));
  }

  #check({ model, stream, stream_options }: CommonBody): void {
    const { adapters = [] } = this.#model;
    const called = model ?? this.#name;
    if (called !== this.#name && !adapters.includes(called)) throw noModel(called, this.#name, adapters);
    if (stream_options && !stream)
      throw new Failure(400, 'stream_options is only allowed when stream is true.', { param: 'stream_options' });
  }

  get #mostTokens(): number {
    return Math.min(this.#limits.promptTokens, this.#model.maxContext - 1);
  }

  #checkLength({ length }: readonly number[], param: string): void {
    const most = this.#mostTokens;
    if (length > most) throw tooLong(`The prompt has ${length} tokens; at most ${most}`, param);
  }

  async #chatPrompt(...asked: Parameters<ServedModel['chatPrompt']>): Promise<number[]> {
    try {
      return await this.#model.chatPrompt(...asked);
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      if (code === 'ERR_INVALID_ARGUMENT')
        throw new Failure(400, message, { param: 'messages', code: 'invalid_value' });
      if (code !== 'ERR_CHECKPOINT_CONTENT') throw error;
      await this.#model.tokenizer(); // where that is to blame, it says so again
      const advice = 'The model has no chat template: it goes on with texts, at /v1/completions.';
      throw new Failure(400, advice, { param: 'messages', code: 'no_chat_template' });
    }
  }

  async #encode(prompt: string): Promise<number[]> {
    const most = this.#mostTokens;
    const characters = most * this.#limits.tokenCharacters;
    if (prompt.length <= characters) return (await this.#tokenizer()).encodeApart(prompt);
    throw tooLong(
      `The prompt has ${prompt.length} characters; at most ${most} tokens and ${characters} characters`,
      'prompt',
    );
  }

  /** With what only serving asks of it. */
  async #tokenizer(): Promise<ChatTokenizer> {
    return (await this.#model.tokenizer()) as ChatTokenizer;
  }

  async #decode(ids: readonly number[]): Promise<string> {
    return (await this.#model.tokenizer()).decode(ids);
  }

  #texts(
    shape: Asked['shape'],
    body: CommonBody,
    given: Pick<Asked, 'prompts' | 'echoes'> &
      Partial<Pick<Asked, 'readCalls'>> & { n: number } & Pick<GenerateOptions, 'maxTokens' | 'logprobs' | 'format'>,
  ): Texts {
    const { prompts, echoes, n, maxTokens, logprobs, format, readCalls } = given;
    const model = body.model ?? this.#name;
    const temperature = (body.temperature ?? 1) < 1e-3 ? 0 : (body.temperature ?? 1);
    const spell = async ({ id, logprobs: told }: GeneratedToken): Promise<SpelledToken> => {
      const { logprob, top } = told!;
      const ids = [id, ...top.map((other) => other.id)];
      const [text, ...others] = await (await this.#tokenizer()).spell(ids);
      return { id, text: text!, logprob, top: top.map((other, i) => ({ ...other, text: others[i]! })) };
    };
    return {
      stream: body.stream === true,
      asked: {
        ...{ shape, model, prompts, echoes, readCalls, stallMs: this.#limits.stallMs },
        promptTokens: prompts.reduce((sum, { length }) => sum + length, 0) / n,
        includeUsage: body.stream_options?.include_usage === true,
        spell: logprobs === undefined ? undefined : spell,
      },
      options: (index) => ({
        ...{ maxTokens, temperature, logprobs, format, stop: body.stop ?? [] },
        adapter: model === this.#name ? undefined : model,
        topP: body.top_p ?? undefined,
        topK: body.top_k ?? undefined,
        minP: body.min_p ?? undefined,
        repetitionPenalty: body.repetition_penalty ?? undefined,
        // Texts of one prompt differ, and are the same again for the same seed.
        seed: (body.seed ?? undefined) === undefined ? undefined : seedAfter(body.seed!, index % n),
      }),
    };
  }
}

/** `seed + count`; after the last seed comes 0. */
function seedAfter(seed: number, count: number): number {
  const beyond = seed - Number.MAX_SAFE_INTEGER + count - 1;
  return beyond >= 0 ? beyond : seed + count;
}

/** What an answer is kept to. */
async function formatOf(given: ChatBody['response_format'], signal: AbortSignal): Promise<TextFormat | undefined> {
  if (given?.type === 'json_object') return 'json';
  if (given?.type !== 'json_schema') return undefined;
  const schema = given.json_schema?.schema;
  const refuse = (message: string) =>
    new Failure(400, message, { param: 'response_format', code: 'invalid_json_schema' });
  if (!schema) throw refuse('response_format.json_schema.schema is missing.');
  try {
    return await readFormat({ schema }, signal); // once for all n texts
  } catch (error) {
    signal.throwIfAborted();
    throw refuse((error as Error).message);
  }
}

/** Calls of earlier turns as templates expect them: with arguments that are an object, where a client's are text. */
function withArguments(calls: unknown): unknown {
  if (!Array.isArray(calls)) return calls;
  return (calls as readonly ({ function?: { arguments?: unknown } | null } | null)[]).map((call) => {
    const given = call?.function?.arguments;
    const object = typeof given === 'string' ? parsed(given) : undefined;
    return object ? { ...call, function: { ...call!.function, arguments: object } } : call;
  });
}

/** The error for a model that is not served. */
export function noModel(given: string, name: string, adapters: readonly string[] = []): Failure {
  const message = `There is no model ${JSON.stringify(given.slice(0, 100))}, only ${[name, ...adapters].join(', ')}.`;
  return new Failure(404, message, { param: 'model', code: 'model_not_found' });
}

function tooLong(what: string, param: string): Failure {
  return new Failure(400, `${what} are served.`, { param, code: 'context_length_exceeded' });
}
