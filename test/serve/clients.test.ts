import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import type { LanguageModel } from '../../lib/runtime/model.js';
import type { ServedEncoder } from '../../lib/serve/embeddings.js';
import { checkKeys, readKeys } from '../../lib/serve/keys.js';
import { createEmbeddingServer, createServer } from '../../lib/serve/server.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

// What a program does that uses OpenAI's own client.

const work = scratchFolder('clients');
const MODEL = 'books';
let model: LanguageModel;
let server: ReturnType<typeof createServer>;
let client: OpenAI;
let url: string;

beforeAll(async () => {
  const folder = join(work, 'talking');
  cpSync(SHIPPED, folder, { recursive: true });
  const template =
    '{% if tools %}{{ tools[0].function.name }}\n{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:';
  writeFileSync(join(folder, 'chat_template.jinja'), template);
  const file = join(work, 'keys');
  writeFileSync(file, '# of the tests\nsecret\n\nother\n');
  model = await loadLanguageModel(folder);
  server = createServer(model, { name: MODEL, checkKey: checkKeys(await readKeys(file)) });
  url = await server.listen({ port: 0, host: '127.0.0.1' });
  client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'secret', maxRetries: 0 });
});

afterAll(async () => {
  await server.close();
  await model.close();
});

const messages = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: [{ type: 'text', text: 'And the Lord said' }] },
] satisfies OpenAI.ChatCompletionMessageParam[];
const asked = { model: MODEL, messages, max_completion_tokens: 8, temperature: 0.8, seed: 3 };

describe("OpenAI's client", () => {
  test('lists and finds models', async () => {
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual([MODEL]);
    expect(await client.models.retrieve(MODEL)).toMatchObject({ id: MODEL, object: 'model' });
    await expect(client.models.retrieve('other/one')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });

  test('talks, whole and streamed, the same for the same seed', async () => {
    const whole = await client.chat.completions.create({ ...asked, n: 2 });
    expect(whole.choices.map(({ index, message }) => [index, message.role])).toEqual([
      [0, 'assistant'],
      [1, 'assistant'],
    ]);
    expect(whole.choices[0]!.message.content).not.toBe(whole.choices[1]!.message.content);
    expect(whole.usage).toMatchObject({ completion_tokens: 16 });
    const stream = await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    });
    let [text, finish, role, tokens] = ['', '', '', 0];
    for await (const { choices, usage } of stream) {
      text += choices[0]?.delta.content ?? '';
      role ||= choices[0]?.delta.role ?? '';
      finish ||= choices[0]?.finish_reason ?? '';
      tokens = usage?.completion_tokens ?? tokens;
    }
    expect([text, finish, role, tokens]).toEqual([whole.choices[0]!.message.content, 'length', 'assistant', 8]);
    const again = await client.chat.completions.create(asked);
    expect(again.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThan(0);
  });

  test('passes tools to the template, or keeps them from it', async () => {
    const tools = [{ type: 'function' as const, function: { name: 'a_very_long_name_of_a_tool' } }];
    const tokens = async (more: object) =>
      (await client.chat.completions.create({ ...asked, ...more })).usage!.prompt_tokens;
    const without = await tokens({});
    expect(await tokens({ tools })).toBeGreaterThan(without);
    expect(await tokens({ tools, tool_choice: 'none' })).toBe(without);
  });

  test('completes lists of prompts, with echo and likelihoods', async () => {
    const { choices, usage } = await client.completions.create({
      ...{ model: MODEL, prompt: ['The sea', 'A whale'], max_tokens: 4, temperature: 0, echo: true, logprobs: 2, n: 2 },
    });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(choices[0]!.text).toMatch(/^The sea/);
    expect(choices[2]!.text).toMatch(/^A whale/);
    expect(choices[1]!.text).toBe(choices[0]!.text); // without a temperature there is one answer
    expect(usage!.completion_tokens).toBe(16);
    const { tokens, token_logprobs, top_logprobs, text_offset } = choices[0]!.logprobs!;
    expect([tokens, token_logprobs, top_logprobs].map((list) => list!.length)).toEqual([4, 4, 4]);
    expect(token_logprobs![0]).toBeLessThan(0);
    expect(Math.max(...Object.values(top_logprobs![0]!))).toBe(token_logprobs![0]); // the likeliest was taken
    expect(text_offset![0]).toBe('The sea'.length);
    const chat = await client.chat.completions.create({ ...asked, temperature: 0, logprobs: true, top_logprobs: 3 });
    expect(chat.choices[0]!.logprobs!.content!.map(({ top_logprobs }) => top_logprobs.length)).toEqual(
      Array(8).fill(3),
    );
  });

  test('has an object of JSON where it asks for one', async () => {
    const { choices } = await client.chat.completions.create({
      ...{ ...asked, max_completion_tokens: 30, response_format: { type: 'json_object' } },
    });
    const { message, finish_reason } = choices[0]!;
    expect(message.content).toMatch(/^\s*\{/);
    if (finish_reason === 'stop') expect(typeof JSON.parse(message.content!)).toBe('object');
  });

  test('has an object of its schema', async () => {
    const schema = {
      type: 'object',
      properties: { kind: { enum: ['sea', 'sky'] }, sure: { type: 'boolean' } },
      required: ['kind', 'sure'],
      additionalProperties: false,
    };
    const response_format = { type: 'json_schema', json_schema: { name: 'thing', strict: true, schema } } as const;
    const { choices } = await client.chat.completions.create({ ...asked, max_completion_tokens: 60, response_format });
    const { message, finish_reason } = choices[0]!;
    expect(finish_reason).toBe('stop');
    const { kind, sure } = JSON.parse(message.content!) as { kind: string; sure: boolean };
    expect([['sea', 'sky'].includes(kind), typeof sure]).toEqual([true, 'boolean']);
    const pattern = { type: 'object', properties: { a: { type: 'string', pattern: 'a' } } };
    const refused = { ...response_format, json_schema: { name: 'thing', schema: pattern } };
    await expect(client.chat.completions.create({ ...asked, response_format: refused })).rejects.toMatchObject({
      ...{ status: 400, param: 'response_format', code: 'invalid_json_schema' },
      message: expect.stringContaining('schema.a.pattern') as string,
    });
  });

  test('is told what is wrong as OpenAI tells it', async () => {
    const refused = (more: object) => client.chat.completions.create({ ...asked, ...more } as never);
    await expect(refused({ model: 'gpt' })).rejects.toMatchObject({
      status: 404,
      code: 'model_not_found',
      param: 'model',
    });
    await expect(refused({ temperature: 3 })).rejects.toMatchObject({
      status: 400,
      code: 'invalid_value',
      param: 'temperature',
    });
    await expect(refused({ messages: undefined })).rejects.toMatchObject({
      code: 'missing_required_parameter',
      param: 'messages',
    });
    await expect(refused({ messages: [{ role: 'user', content: [{ type: 'image_url' }] }] })).rejects.toMatchObject({
      ...{ status: 400, param: 'messages' },
      message: expect.stringContaining('messages must be a list of messages') as string,
    });
    await expect(refused({ top_logprobs: 2 })).rejects.toMatchObject({ param: 'top_logprobs' });
    await expect(refused({ response_format: { type: 'json_schema', json_schema: {} } })).rejects.toMatchObject({
      param: 'response_format',
    });
    await expect(refused({ messages: [{ role: 'user', content: 'the '.repeat(300) }] })).rejects.toMatchObject({
      ...{ status: 400, code: 'context_length_exceeded', param: 'messages' },
    });
    const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'guessed', maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' });
    expect((await fetch(`${url}/v1/models`)).status).toBe(401);
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });

  test('leaves a stream, whose text then ends', async () => {
    const stream = await client.chat.completions.create({ ...asked, max_completion_tokens: 90, stream: true });
    for await (const { choices } of stream) if (choices[0]?.delta.content) break;
    const health = async () => (await (await fetch(`${url}/health`)).json()) as object;
    await expect.poll(health).toMatchObject({ active: 0, aborted: 1 });
  });

  test('asks for vectors, as bytes and as numbers', async () => {
    // Vectors tell what was asked: the length of a text, and its first id.
    const encoder = {
      ...{ maxTokens: 12, vocabSize: 300 },
      encode: async (text: string) => [...Buffer.from(text)],
      embed: async (ids: ArrayLike<number>) => Float32Array.of(ids.length, ids[0]!, 0.1),
    } as unknown as ServedEncoder;
    const vectors = createEmbeddingServer(encoder, { name: 'minilm' });
    const at = await vectors.listen({ port: 0, host: '127.0.0.1' });
    try {
      const own = new OpenAI({ baseURL: `${at}/v1`, apiKey: 'none', maxRetries: 0 });
      for (const encoding_format of [undefined, 'float', 'base64'] as const) {
        const { data, usage } = await own.embeddings.create({
          ...{ model: 'minilm', input: ['the sea', 'a'], ...(encoding_format && { encoding_format }) },
        });
        const first = data[0]!.embedding as unknown;
        const bytes = typeof first === 'string' ? Buffer.from(first, 'base64') : undefined;
        const numbers = bytes ? [0, 4, 8].map((offset) => bytes.readFloatLE(offset)) : (first as number[]);
        expect(numbers).toEqual([7, 116, Math.fround(0.1)]);
        expect([data.map(({ index }) => index), usage.total_tokens]).toEqual([[0, 1], 8]);
      }
      const ids = await own.embeddings.create({ model: 'minilm', input: [5, 6], encoding_format: 'float' });
      expect(ids.data[0]!.embedding.slice(0, 2)).toEqual([2, 5]);
      const refused = (more: object) => own.embeddings.create({ model: 'minilm', input: 'x', ...more } as never);
      await expect(refused({ input: 'longer than twelve' })).rejects.toMatchObject({ code: 'context_length_exceeded' });
      await expect(refused({ dimensions: 2 })).rejects.toMatchObject({ status: 400, param: 'dimensions' });
      await expect(refused({ model: 'other' })).rejects.toMatchObject({ code: 'model_not_found' });
      await expect(own.completions.create({ model: 'minilm', prompt: 'x' })).rejects.toMatchObject({
        code: 'unknown_url',
      });
    } finally {
      await vectors.close();
    }
  });

  test('is counted', async () => {
    const response = await fetch(`${url}/metrics`, { headers: { authorization: 'bearer other' } });
    expect(response.headers.get('content-type')).toContain('text/plain');
    const text = await response.text();
    expect(text).toMatch(/^# HELP hqq_requests_received_total /);
    expect(text).toMatch(/^hqq_requests_total\{end="completed"\} [1-9]/m);
    expect(text).toMatch(/^hqq_tokens_total\{kind="reused"\} [1-9]/m);
    expect(text).toMatch(/^hqq_first_token_seconds_bucket\{le="\+Inf"\} [1-9]/m);
  });

  test('needs keys, where a file is to have some', async () => {
    const empty = join(work, 'empty');
    writeFileSync(empty, '# none\n');
    await expect(readKeys(empty)).rejects.toThrow('to hold API keys, one a line, got none.');
  });
});
