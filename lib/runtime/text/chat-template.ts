import { join } from 'node:path';
import { checkSignal } from '../../compute/signal.js';
import { readWhole, systemCode } from '../../files/io.js';
import { parseJson } from '../../files/json.js';
import { HqqError, show } from '../../messages/errors.js';
import { rejectUnknownOptions } from '../../messages/options-object.js';
import { plain } from '../../messages/text.js';
import { openFolderModel } from '../../models/folder-model.js';

/** Largest file that a template is looked for in: tokenizer_config.json may list thousands of added tokens. */
const MAX_BYTES = 16 * 1024 * 1024;

/** One turn of a conversation, as OpenAI's API and the templates of models have it. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, `tool`, or what else the model's template knows. */
  readonly role: string;
  /** What was said. Left out, or null, where a message consists of tool calls. */
  readonly content?: string | null | undefined;
  /** What else the model's template reads: `tool_calls`, `tool_call_id`, `name`, `reasoning_content`. */
  readonly [field: string]: unknown;
}

/** How a conversation becomes the beginning of a text. */
export interface ChatOptions {
  /** Tools that the model may call, as OpenAI's API has them: passed on to the template. */
  readonly tools?: readonly object[] | undefined;
  /** Further variables of the template, such as `{ enable_thinking: false }`. */
  readonly templateOptions?: Readonly<Record<string, unknown>> | undefined;
}

/** How a conversation becomes ids. */
export interface ChatPromptOptions extends ChatOptions {
  /** Most characters of what the template makes of the messages: more are an error before they are tokenized. @default Infinity */
  readonly maxCharacters?: number | undefined;
  /** An abort rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** A model's own. */
export interface ChatTemplate {
  readonly template: string;
  /** What some models have in its place for conversations with tools. */
  readonly withTools?: string | undefined;
  /** Texts of special tokens: `bos_token`, `eos_token` and so on. */
  readonly specials: Readonly<Record<string, string>>;
}

type Json = Readonly<Record<string, unknown>>;

/**
 * The chat template of a model folder: `chat_template.jinja` (for conversations with tools `additional_chat_templates/tool_use.jinja`), else
 * `chat_template` of `tokenizer_config.json`, or that of a GGUF file.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` where there is none
 */
export async function readChatTemplate(path: string): Promise<ChatTemplate> {
  const [jinja, config, tools] = await readParts(path);
  const { template, withTools } =
    jinja === undefined ? templatesOf(config.chat_template) : { template: jinja, withTools: tools };
  if (template === undefined) {
    const message = `${plain(path)} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)`;
    const advice = 'it may be a base model, which goes on with texts: use generate (hqq generate)';
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `${message}: ${advice}, or copy the template from where the model comes from.`,
    );
  }
  const specials: Record<string, string> = {};
  for (const [name, value] of Object.entries(config)) {
    if (!/^[a-z]+_token$/.test(name)) continue;
    const text = typeof value === 'string' ? value : (value as Json | null)?.content;
    if (typeof text === 'string') specials[name] = text;
  }
  return { template, withTools, specials };
}

async function readParts(path: string): Promise<[jinja: string | undefined, config: Json, tools: string | undefined]> {
  const [template, config, tools] = await Promise.all([
    readIfThere(join(path, 'chat_template.jinja')),
    readIfThere(join(path, 'tokenizer_config.json')),
    readIfThere(join(path, 'additional_chat_templates', 'tool_use.jinja')),
  ]);
  if (template || config) {
    const file = join(path, 'tokenizer_config.json');
    const text = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString('utf8');
    return [text(template), config ? (parseJson(config, { file }) as Json) : {}, text(tools)];
  }
  const model = await openFolderModel(path);
  try {
    const made = model.madeText('tokenizer_config.json');
    return [undefined, made === undefined ? {} : (JSON.parse(made) as Json), undefined];
  } finally {
    await model.close();
  }
}

async function readIfThere(file: string): Promise<Uint8Array | undefined> {
  try {
    return await readWhole(file, MAX_BYTES);
  } catch (error) {
    if (error instanceof HqqError && /^(ENOENT|ENOTDIR)$/.test(systemCode(error.cause) ?? '')) return undefined;
    throw error;
  }
}

/** Some models have several, by name: one of the names `default` and `tool_use`, or the only one, whatever its name. */
function templatesOf(given: unknown): { template?: string | undefined; withTools?: string | undefined } {
  if (typeof given === 'string') return { template: given };
  if (!Array.isArray(given)) return {};
  const entries = (given as (Json | null)[]).filter((entry) => typeof entry?.template === 'string');
  const named = (name: string) => entries.find((entry) => entry!.name === name)?.template as string | undefined;
  const withTools = named('tool_use');
  const only = entries.length === 1 ? (entries[0]!.template as string) : undefined;
  return { template: named('default') ?? withTools ?? only, withTools };
}

/** @throws {HqqError} `ERR_INVALID_ARGUMENT` unless `messages` is a conversation. */
export function checkMessages(messages: readonly ChatMessage[]): void {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new HqqError('ERR_INVALID_ARGUMENT', `Expected messages to be a list of messages, got ${show(messages)}.`);
  }
  for (const [i, message] of (messages as readonly unknown[]).entries()) {
    const { role, content } = (typeof message === 'object' && message !== null ? message : {}) as Partial<ChatMessage>;
    const said = typeof content === 'string' || content === null || content === undefined;
    if (typeof role === 'string' && role !== '' && said) continue;
    const expected = `Expected message ${i} to have a role and a content that are texts`;
    throw new HqqError('ERR_INVALID_ARGUMENT', `${expected}, got ${show(message)}.`);
  }
}

/** @throws {HqqError} `ERR_INVALID_OPTION` unless tools are a list of objects, and the template's variables an object. */
export function checkChatOptions<T extends ChatOptions>(options: T): T {
  if (typeof options !== 'object' || options === null) {
    throw new HqqError('ERR_INVALID_OPTION', `Expected the options to be an object, got ${show(options)}.`);
  }
  const { tools, templateOptions } = options;
  const isObject = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value);
  if (tools !== undefined && !(Array.isArray(tools) && tools.every(isObject)))
    throw new HqqError('ERR_INVALID_OPTION', `Expected tools to be a list of objects, got ${show(tools)}.`);
  if (templateOptions !== undefined && !isObject(templateOptions))
    throw new HqqError('ERR_INVALID_OPTION', `Expected templateOptions to be an object, got ${show(templateOptions)}.`);
  return options;
}

/** @throws {HqqError} `ERR_INVALID_OPTION` as `checkChatOptions`, and for other options. */
export function checkPromptOptions(options: ChatPromptOptions): void {
  rejectUnknownOptions(checkChatOptions(options), ['tools', 'templateOptions', 'maxCharacters', 'signal']);
  const { maxCharacters = Infinity, signal } = options;
  checkSignal(signal);
  if (maxCharacters === Infinity || (Number.isSafeInteger(maxCharacters) && maxCharacters > 0)) return;
  throw new HqqError(
    'ERR_INVALID_OPTION',
    `Expected maxCharacters to be an integer, at least 1, got ${show(maxCharacters)}.`,
  );
}

/** The one for a conversation. */
export function templateFor({ template, withTools = template }: ChatTemplate, { tools }: ChatOptions): string {
  return tools && tools.length > 0 ? withTools : template;
}

/** What a template sees of a conversation. */
export function templateContext(
  { specials }: ChatTemplate,
  messages: readonly ChatMessage[],
  { tools, templateOptions }: ChatOptions,
): Record<string, unknown> {
  return {
    ...specials,
    ...templateOptions,
    messages,
    ...(tools && tools.length > 0 ? { tools } : {}),
    add_generation_prompt: true,
  };
}
