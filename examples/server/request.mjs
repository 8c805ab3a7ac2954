// What a completion request may say, as the OpenAI API has it, and what a client is told that says something else.

/** A field's schema with `description`: what the field must be, for the message of an error. It may be null, too. */
const field = (description, schema) => ({ description, nullable: true, ...schema });
const integer = (minimum, maximum) =>
  field(`an integer in [${minimum}, ${maximum}]`, { type: 'integer', minimum, maximum });
const number = (minimum, maximum) =>
  field(`a number in [${minimum}, ${maximum}]`, { type: 'number', minimum, maximum });
const boolean = field('true or false', { type: 'boolean' });
const text = { type: 'string', minLength: 1, maxLength: 256 };
/** A field that is served with one value only: that which clients write who mean the default. */
const only = (value) => ({ description: `${value} or null: the server does nothing else`, enum: [value, null] });
const nothing = { description: 'null: the server does not do it', type: 'null' };

/** The request's body. What would be ignored and matters is refused; unknown fields are dropped. */
export const bodySchema = (limits, vocabSize) => ({
  type: 'object',
  required: ['prompt'],
  properties: {
    model: field('a text', { type: 'string' }),
    prompt: {
      description: `a text that is not empty or a list of token ids in [0, ${vocabSize - 1}]`,
      anyOf: [
        { type: 'string', minLength: 1 },
        { type: 'array', items: { type: 'integer', minimum: 0, maximum: vocabSize - 1 }, minItems: 1 },
      ],
    },
    max_tokens: integer(1, limits.maxTokens),
    temperature: number(0, 2),
    top_p: field('a number in (0, 1]', { type: 'number', exclusiveMinimum: 0, maximum: 1 }),
    top_k: integer(0, 1_000_000),
    min_p: number(0, 1),
    repetition_penalty: number(0.1, 10),
    seed: integer(0, Number.MAX_SAFE_INTEGER),
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
    n: only(1),
    best_of: only(1),
    echo: only(false),
    presence_penalty: only(0),
    frequency_penalty: only(0),
    logprobs: nothing,
    logit_bias: nothing,
    suffix: nothing,
  },
});

/** An error that the client is told as it is. */
export const failure = (statusCode, message, { type = 'invalid_request_error', param = null } = {}) =>
  Object.assign(new Error(message), { statusCode, type, param, told: true });

/** Turns a validator's complaints about a body into one sentence on one field. */
export const explain = (schema) => (errors) => {
  const { keyword, instancePath, params } = errors.at(-1); // of alternatives that all fail, the last speaks for the field
  const path = instancePath.split('/').slice(1);
  if (keyword === 'additionalProperties') {
    const [param] = path;
    const name = JSON.stringify(params.additionalProperty.slice(0, 100));
    const names = Object.keys(schema.properties[param].properties).join(', ');
    return failure(400, `Unknown field ${name} in ${param}. Fields: ${names}.`, { param });
  }
  if (keyword === 'required')
    return failure(400, `${params.missingProperty} is missing.`, { param: params.missingProperty });
  if (path.length === 0) return failure(400, 'The body must be a JSON object.');
  const { description } = path.reduce((inner, name) => inner.properties?.[name] ?? inner, schema);
  return failure(400, `${path.join('.')} must be ${description}.`, { param: path[0] });
};
