import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { HqqError } from '../../lib/messages/errors.js';
import type { GenerateOptions } from '../../lib/runtime/text/generate-options.js';
import { formatStart, type TextFormat } from '../../lib/runtime/text/json/json-text.js';
import { checkKeys, readKeys } from '../../lib/serve/keys.js';
import type { Limits } from '../../lib/serve/limits.js';
import type { ServedModel } from '../../lib/serve/requests.js';
import { createServer } from '../../lib/serve/server.js';
import { scratchFolder } from '../support/scratch.js';

// What clients send whom nobody knows, to a model that costs nothing.

const closing: (() => Promise<void>)[] = [];

afterEach(async () => {
  await Promise.all(closing.splice(0).map((close) => close()));
});

/** A machine may have much else to do. */
const SOON = { timeout: 10_000 };

type Parts = Record<string, unknown>;

/** A model whose tokens are the bytes of texts, and which answers with the tokens `answer`. */
const bytes = (more: Parts = {}, answer: readonly object[] = [{ id: 97, text: 'a', finish: 'length' }]) =>
  ({
    config: { vocabSize: 256 },
    maxContext: 100,
    tokenizer: async () => ({
      encodeApart: async (text: string) => [...Buffer.from(text)],
      spell: async (ids: readonly number[]) => ids.map((id) => Buffer.from([id]).toString('utf8')),
      decode: async (ids: readonly number[]) => Buffer.from(ids).toString('utf8'),
    }),
    chatPrompt: async () => [1, 2, 3],
    async *generate() {
      yield* answer;
    },
    ...more,
  }) as unknown as ServedModel;

async function serve(model: ServedModel, limits: Partial<Limits> = {}) {
  const onFailure = vi.fn();
  const app = createServer(model, { name: 'bytes', limits, onFailure });
  closing.push(() => app.close());
  const url = await app.listen({ port: 0, host: '127.0.0.1' });
  const post = async (path: string, body: unknown, signal?: AbortSignal) => {
    const response = await fetch(`${url}/v1/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      ...(signal && { signal }),
    });
    const text = await response.text();
    const error = response.ok ? undefined : (JSON.parse(text) as { error: Parts }).error;
    return { status: response.status, text, error };
  };
  return { url, post, onFailure };
}

const messages = [{ role: 'user', content: 'x' }];

test('reads the schema of an answer once, not for each text', async () => {
  const formats: TextFormat[] = [];
  async function* generate(_: unknown, { format }: GenerateOptions) {
    formats.push(format!);
    yield { id: 97, text: 'a', finish: 'length' };
  }
  const { post } = await serve(bytes({ generate }));
  const response_format = { type: 'json_schema', json_schema: { name: 'any', schema: { type: 'object' } } };
  expect((await post('chat/completions', { messages, n: 3, response_format })).status).toBe(200);
  expect(formats).toHaveLength(3);
  expect(new Set(formats.map(formatStart)).size).toBe(1);
});

test('counts all that a template may write, not contents alone', async () => {
  const chatPrompt = vi.fn(async () => [1]);
  const { post } = await serve(bytes({ chatPrompt }));
  const long = 'x'.repeat(2000);
  for (const [param, body] of [
    ['messages', { messages: [{ role: long, content: '' }] }],
    ['messages', { messages: [{ role: 'assistant', tool_calls: [{ function: { name: long } }] }] }],
    ['tools', { messages, tools: [{ description: long }] }],
    ['chat_template_kwargs', { messages, chat_template_kwargs: { date: long } }],
  ] as const) {
    const { status, error } = await post('chat/completions', body);
    expect([status, error]).toMatchObject([400, { param, code: 'context_length_exceeded' }]);
    expect(error!.message).toMatch(new RegExp(`^As JSON, ${param} has 2\\d\\d\\d characters; at most 1584 are served`));
  }
  expect(chatPrompt).not.toHaveBeenCalled();
});

test('lets no more requests wait for the tokenizer than texts may wait, and forgets those that leave', async () => {
  let free = () => {};
  const held = new Promise<void>((resolve) => (free = resolve));
  const encode = vi.fn(async () => held.then(() => [1]));
  const { url, post } = await serve(bytes({ tokenizer: async () => ({ encodeApart: encode }) }), {
    active: 1,
    queue: 2,
  });
  const body = { prompt: 'x' };
  const first = post('completions', body);
  await expect.poll(() => encode.mock.calls.length, SOON).toBe(1);
  const leaving = new AbortController();
  const left = post('completions', body, leaving.signal).catch(() => 'left');
  const received = async () => ((await (await fetch(`${url}/health`)).json()) as Parts).received;
  await expect.poll(received, SOON).toBe(2);
  const second = post('completions', body);
  await expect.poll(received, SOON).toBe(3);
  expect((await post('completions', body)).error).toMatchObject({ code: 'rate_limit_exceeded' });
  leaving.abort();
  await left;
  await expect.poll(async () => ((await (await fetch(`${url}/health`)).json()) as Parts).aborted, SOON).toBe(1);
  free();
  expect([(await first).status, (await second).status]).toEqual([200, 200]);
  expect(encode).toHaveBeenCalledTimes(2);
});

test('says of what never fits that it does not, and not when to come again', async () => {
  const { post } = await serve(bytes(), { active: 1, queue: 1 });
  expect(await post('completions', { prompt: 'x', n: 3 })).toMatchObject({ status: 400, error: { param: 'n' } });
  const many = await post('completions', { prompt: ['x', 'y'], n: 2 });
  expect(many).toMatchObject({ status: 400, error: { param: 'prompt' } });
  expect((await post('completions', { prompt: 'x', n: 2 })).status).toBe(200);
});

test('tells a client of no file of the server', async () => {
  const refusing = (code: 'ERR_CHECKPOINT_CONTENT' | 'ERR_INVALID_ARGUMENT') => async () => {
    throw new HqqError(code, '/srv/models/base has no chat template: use generate (hqq generate)');
  };
  const chat = await serve(bytes({ chatPrompt: refusing('ERR_CHECKPOINT_CONTENT') }));
  expect(await chat.post('chat/completions', { messages })).toMatchObject({
    status: 400,
    error: { message: /^The model has no chat template: .*\/v1\/completions/, param: 'messages' },
  });
  const refused = await serve(bytes({ chatPrompt: refusing('ERR_INVALID_ARGUMENT') }));
  const { error } = await refused.post('chat/completions', { messages });
  expect(error).toMatchObject({ param: 'messages', code: 'invalid_value' });
  const broken = await serve(
    bytes({
      async *generate() {
        yield* [];
        throw new HqqError('ERR_CHECKPOINT_CONTENT', '/srv/models/base gives NaN');
      },
    }),
  );
  const failed = await broken.post('completions', { prompt: 'x' });
  expect(failed).toMatchObject({ status: 500, error: { message: 'The server failed.' } });
  expect(broken.onFailure).toHaveBeenCalledOnce();
});

test('explains bodies that are no objects, and goes on after the last seed', async () => {
  const generate = vi.fn(async function* () {
    yield { id: 97, text: 'a', finish: 'length' };
  });
  const { post } = await serve(bytes({ generate }));
  for (const body of [null, []])
    expect(await post('completions', body)).toMatchObject({ status: 400, error: { code: 'invalid_value' } });
  const seed = Number.MAX_SAFE_INTEGER;
  expect((await post('completions', { prompt: 'x', n: 3, seed })).status).toBe(200);
  expect(generate.mock.calls.map((call) => (call as unknown[])[1])).toMatchObject([{ seed }, { seed: 0 }, { seed: 1 }]);
});

test('tells where tokens are, and which bytes they have, where it knows', async () => {
  const [first, last] = [...Buffer.from('é')] as [number, number];
  const top = [first, 98, last].map((id, i) => ({ id, logprob: -i - 1 }));
  const { post } = await serve(
    bytes({}, [
      { id: first, text: '', logprobs: { logprob: -1, top } },
      { id: last, text: 'é', logprobs: { logprob: -1, top }, finish: 'length' },
    ]),
  );
  type Told = { choices: { logprobs: { text_offset: number[]; top_logprobs: object[] } }[] };
  const body = { prompt: 'The sea', echo: true, logprobs: 3 };
  const whole = (JSON.parse((await post('completions', body)).text) as Told).choices[0]!.logprobs;
  expect(whole.text_offset).toEqual([7, 8]);
  expect(whole.top_logprobs[0]).toEqual({ '\uFFFD': -1, b: -2, [`token_id:${last}`]: -3 });
  const events = (await post('completions', { ...body, stream: true })).text.trimEnd().split('\n\n').slice(0, -1);
  const offsets = events.flatMap((event) => (JSON.parse(event.slice(6)) as Told).choices[0]!.logprobs.text_offset);
  expect(offsets).toEqual(whole.text_offset);
  const chat = await post('chat/completions', { messages, logprobs: true, top_logprobs: 3 });
  const { content } = JSON.parse(chat.text).choices[0].logprobs as { content: { bytes: unknown; top_logprobs: [] }[] };
  expect(content[0]).toMatchObject({ bytes: null, top_logprobs: [{ bytes: null }, { bytes: [98] }, { bytes: null }] });
});

test('knows keys in any script, as bytes of UTF-8 or of Latin-1', async () => {
  const file = join(scratchFolder('keys'), 'keys');
  writeFileSync(file, 'schlüssel à\nключ\n');
  const app = createServer(bytes(), { name: 'bytes', checkKey: checkKeys(await readKeys(file)) });
  closing.push(() => app.close());
  const url = await app.listen({ port: 0, host: '127.0.0.1' });
  const status = (key: Buffer) =>
    new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${key.toString('latin1')}` };
      const asking = request(`${url}/v1/models`, { headers, agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      asking.on('error', reject).end();
    });
  const keys = [Buffer.from('ключ'), Buffer.from('schlüssel à'), Buffer.from('schlüssel à', 'latin1')];
  expect(await Promise.all(keys.map(status))).toEqual([200, 200, 200]);
  expect(await status(Buffer.from('schlüssel'))).toBe(401);
});
