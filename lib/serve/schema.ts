import { Failure } from './failure.js';
import type { Limits } from './limits.js';

// What a request may say, as OpenAI's API has it, and what a client is told that says something else. What would be ignored and matters
// is refused; unknown fields are dropped.

/** A JSON schema. */
export interface Schema {
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly [keyword: string]: unknown;
}

/** A field's schema with `description`: what the field must be, for the message of an error. It may be null, too. */
const field = (description: string, schema: object): Schema => ({ description, nullable: true, ...schema });
const integer = (minimum: number, maximum: number) =>
  field(`an integer in [${minimum}, ${maximum}]`, { type: 'integer', minimum, maximum });
const number = (minimum: number, maximum: number) =>
  field(`a number in [${minimum}, ${maximum}]`, { type: 'number', minimum, maximum });
const boolean = field('true or false', { type: 'boolean' });
const text = { type: 'string', minLength: 1, maxLength: 256 };
/** A field that is served with one value only: that which clients write who mean the default. */
const only = (value: unknown): Schema => ({
  description: `${JSON.stringify(value)} or null: the server does nothing else`,
  enum: [value, null],
});
const nothing: Schema = { description: 'null: the server does not do it', type: 'null' };

/** What both kinds of requests may say. */
const common = (limits: Limits): Readonly<Record<string, Schema>> => ({
  model: field('a text', { type: 'string' }),
  max_tokens: integer(1, limits.maxTokens),
  temperature: number(0, 2),
  top_p: field('a number in (0, 1]', { type: 'number', exclusiveMinimum: 0, maximum: 1 }),
  top_k: integer(0, 1_000_000),
  min_p: number(0, 1),
  repetition_penalty: number(0.1, 10),
  seed: integer(0, Number.MAX_SAFE_INTEGER),
  n: integer(1, limits.texts),
  stop: {
    description: 'a text of 1 to 256 characters or a list of at most 4 of them',
    anyOf: [{ type: 'null' }, text, { type: 'array', items: text, maxItems: 4 }],
  },
  stream: boolean,
  stream_options: field('an object', {
    type: 'object',
    additionalProperties: false,
    properties: { include_usage: boolean, include_obfuscation: only(false) },
  }),
  presence_penalty: only(0),
  frequency_penalty: only(0),
  logit_bias: nothing,
});

/** The body of a completion. */
export const completionSchema = (limits: Limits, vocabSize: number): Schema => {
  const ids = { type: 'array', items: { type: 'integer', minimum: 0, maximum: vocabSize - 1 }, minItems: 1 };
  const string = { type: 'string', minLength: 1 };
  const most = { minItems: 1, maxItems: limits.texts };
  return {
    type: 'object',
    required: ['prompt'],
    properties: {
      ...common(limits),
      prompt: {
        description: `a text that is not empty or a list of token ids in [0, ${vocabSize - 1}], or a list of up to ${limits.texts} of either`,
        anyOf: [string, { type: 'array', items: string, ...most }, { type: 'array', items: ids, ...most }, ids],
      },
      logprobs: integer(0, 5),
      echo: boolean,
      best_of: only(1),
      suffix: nothing,
    },
  };
};

/** The body of a turn of a conversation. */
export const chatSchema = (limits: Limits): Schema => ({
  type: 'object',
  required: ['messages'],
  properties: {
    ...common(limits),
    messages: {
      description: 'a list of messages, each with a role and a content of text',
      type: 'array',
      minItems: 1,
      items: {
        type: 'object',
        required: ['role'],
        properties: {
          role: { type: 'string', minLength: 1 },
          content: {
            anyOf: [
              { type: 'string' },
              { type: 'null' },
              {
                type: 'array',
                items: {
                  type: 'object',
                  required: ['type', 'text'],
                  properties: { type: { enum: ['text'] }, text: { type: 'string' } },
                },
              },
            ],
          },
        },
      },
    },
    max_completion_tokens: integer(1, limits.maxTokens),
    logprobs: boolean,
    top_logprobs: integer(0, 20),
    tools: field('a list of objects', { type: 'array', items: { type: 'object' } }),
    tool_choice: { description: '"auto", "none" or null: the model decides', enum: ['auto', 'none', null] },
    chat_template_kwargs: field('an object', { type: 'object' }),
    response_format: field(
      '{"type"} of "text", "json_object" or "json_schema", with {"json_schema": {"schema"}}, or null',
      {
        type: 'object',
        required: ['type'],
        properties: {
          type: { enum: ['text', 'json_object', 'json_schema'] },
          json_schema: { type: 'object', nullable: true, properties: { schema: { type: 'object' } } },
        },
      },
    ),
    modalities: { description: '["text"] or null', enum: [['text'], null] },
    audio: nothing,
  },
});

interface Complaint {
  readonly keyword: string;
  readonly instancePath: string;
  readonly params: { readonly missingProperty: string; readonly additionalProperty: string };
}

/** Turns a validator's complaints about a body into one sentence on one field. */
export const explain =
  (schema: Schema) =>
  (errors: readonly Complaint[]): Failure => {
    const { keyword, instancePath, params } = errors.at(-1)!; // of alternatives that all fail, the last speaks for the field
    const path = instancePath.split('/').slice(1);
    if (keyword === 'additionalProperties') {
      const param = path[0]!;
      const name = JSON.stringify(params.additionalProperty.slice(0, 100));
      const names = Object.keys(schema.properties![param]!.properties!).join(', ');
      return new Failure(400, `Unknown field ${name} in ${param}. Fields: ${names}.`, {
        param,
        code: 'unknown_parameter',
      });
    }
    const missing = params.missingProperty;
    if (keyword === 'required' && path.length === 0)
      return new Failure(400, `${missing} is missing.`, { param: missing, code: 'missing_required_parameter' });
    if (path.length === 0) return new Failure(400, 'The body must be a JSON object.', { code: 'invalid_value' });
    const known: string[] = [];
    let inner: Schema = schema;
    for (const name of path) {
      const next = inner.properties?.[name];
      if (next?.description === undefined) break;
      known.push(name);
      inner = next;
    }
    const { description } = inner;
    return new Failure(400, `${known.join('.')} must be ${description}.`, { param: path[0]!, code: 'invalid_value' });
  };
