import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import type { LanguageModel } from '../../lib/runtime/model.js';
import type { Limits } from '../../lib/serve/limits.js';
import type { ServedModel } from '../../lib/serve/requests.js';
import { createServer, type ServerOptions } from '../../lib/serve/server.js';
import { SHIPPED } from '../support/language-models.js';

const CLI = fileURLToPath(new URL('../../dist/cli.mjs', import.meta.url));
const servers: ChildProcess[] = [];
const closing: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const server of servers.splice(0)) server.kill('SIGKILL');
  await Promise.all(closing.splice(0).map((close) => close()));
});

/** Starts the command in a process of its own, as users would. */
async function start(...flags: string[]): Promise<{ url: string; server: ChildProcess }> {
  const args = [CLI, 'serve', SHIPPED, '--port', '0', '--quiet', ...flags];
  const server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  servers.push(server);
  let output = '';
  server.stderr!.on('data', (text) => (output += text));
  return new Promise((resolve, reject) => {
    server.stdout!.on('data', (text) => {
      const url = /on (http:\S+)/.exec((output += text))?.[1];
      if (url) resolve({ url, server });
    });
    server.once('exit', () => reject(new Error(output)));
  });
}

/** The server in this process, on the shipped model or another. */
async function serve(limits: Partial<Limits> = {}, model?: ServedModel, more: Partial<ServerOptions> = {}) {
  const served = model ?? (await loadLanguageModel(SHIPPED));
  const app = createServer(served, { name: 'llama-2.3m-books', limits, ...more });
  closing.push(async () => {
    await app.close();
    if (!model) await (served as LanguageModel).close();
  });
  return { url: await app.listen({ port: 0, host: '127.0.0.1' }) };
}

const post = (url: string, body: object, init: RequestInit = {}) =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...init,
  });

interface Completion {
  readonly choices: readonly { text: string; finish_reason: string | null }[];
  readonly usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
}

/** The events of a stream, checked to end as they should. */
async function readEvents(response: Response): Promise<Completion[]> {
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  const events = (await response.text())
    .trimEnd()
    .split('\n\n')
    .map((event) => event.replace(/^data: /, ''));
  expect(events.pop()).toBe('[DONE]');
  return events.map((event) => JSON.parse(event) as Completion);
}

const textOf = (events: readonly Completion[]) => events.map(({ choices }) => choices[0]!.text).join('');
const health = async (url: string) => (await (await fetch(`${url}/health`)).json()) as Record<string, number | string>;

describe('hqq serve', () => {
  test('completes, streams and says what it serves', async () => {
    const { url } = await serve();
    expect(await health(url)).toMatchObject({ status: 'ok', active: 0, waiting: 0 });
    expect(await (await fetch(`${url}/v1/models`)).json()).toMatchObject({ data: [{ id: 'llama-2.3m-books' }] });
    const body = { prompt: 'And the Lord said', max_tokens: 12, temperature: 0 };
    const whole = (await (await post(url, body)).json()) as Completion;
    expect(whole.usage.completion_tokens).toBe(12);
    expect(whole.choices[0]!.finish_reason).toBe('length');
    const events = await readEvents(await post(url, { ...body, stream: true }));
    expect(textOf(events)).toBe(whole.choices[0]!.text);
    expect(events.at(-1)!.choices[0]!.finish_reason).toBe('length');
    const stop = whole.choices[0]!.text.slice(8, 12);
    const stopped = (await (await post(url, { ...body, stop })).json()) as Completion;
    expect(stopped.choices[0]).toMatchObject({
      text: whole.choices[0]!.text.slice(0, whole.choices[0]!.text.indexOf(stop)),
      finish_reason: 'stop',
    });
  });

  test('tells the usage at the end of a stream that asks for it', async () => {
    const { url } = await serve();
    for (const body of [
      { prompt: 'And the Lord said', max_tokens: 12, temperature: 0 },
      { prompt: [5, 6, 7], max_tokens: 120, temperature: 0, stop: [' the', ' and'] },
    ]) {
      const { usage, choices } = (await (await post(url, body)).json()) as Completion;
      const events = await readEvents(
        await post(url, { ...body, stream: true, stream_options: { include_usage: true } }),
      );
      const last = events.pop()!;
      expect(last).toMatchObject({ object: 'text_completion', model: 'llama-2.3m-books', choices: [], usage });
      expect(usage.total_tokens).toBe(usage.prompt_tokens + usage.completion_tokens);
      expect(events.every((event) => event.usage === null)).toBe(true);
      expect(textOf(events)).toBe(choices[0]!.text);
      expect(events.at(-1)!.choices[0]!.finish_reason).toBe(choices[0]!.finish_reason);
    }
    for (const stream_options of [undefined, null, {}, { include_usage: false }, { include_usage: null }]) {
      const events = await readEvents(await post(url, { prompt: 'And', max_tokens: 3, stream: true, stream_options }));
      expect(events.every((event) => event.choices.length === 1 && !('usage' in event))).toBe(true);
    }
    expect((await post(url, { prompt: 'And', max_tokens: 3, stream_options: null })).status).toBe(200);
  });

  test('refuses what it does not do, with a reason', async () => {
    const { url } = await serve({ bodyBytes: 4096, maxTokens: 50, promptTokens: 20 });
    const refused = async (body: object, status: number, message: RegExp) => {
      const response = await post(url, body);
      const { error } = (await response.json()) as { error: { message: string } };
      expect([response.status, error.message]).toEqual([status, expect.stringMatching(message)]);
    };
    await refused({}, 400, /prompt/);
    await refused({ prompt: 'x', temperature: '1' }, 400, /temperature/);
    await refused({ prompt: 'x', max_tokens: 51 }, 400, /^max_tokens must be an integer in \[1, 50\]\.$/);
    await refused(
      { prompt: [1, 2, 2048] },
      400,
      /^prompt must be a text that is not empty or a list of token ids in \[0, 2047\], or a list of up to 16 of either\.$/,
    );
    await refused({ prompt: 'x', stop: [1] }, 400, /^stop must be a text of/);
    await refused({ prompt: 'x', n: 17 }, 400, /^n must be an integer in \[1, 16\]/);
    await refused({ prompt: ['x', 'y'], n: 9 }, 400, /18 texts; at most 16/);
    const include_usage = true;
    const alone = /^stream_options is only allowed when stream is true\.$/;
    await refused({ prompt: 'x', stream_options: { include_usage } }, 400, alone);
    await refused({ prompt: 'x', stream: false, stream_options: {} }, 400, alone);
    const streamed = { prompt: 'x', stream: true };
    await refused({ ...streamed, stream_options: true }, 400, /^stream_options must be an object\.$/);
    await refused(
      { ...streamed, stream_options: { include_usage: 1 } },
      400,
      /^stream_options\.include_usage must be true or false\.$/,
    );
    await refused(
      { ...streamed, stream_options: { include_obfuscation: true } },
      400,
      /include_obfuscation must be false or null/,
    );
    const unknown = /^Unknown field "usage" in stream_options\. Fields: include_usage, include_obfuscation\.$/;
    await refused({ ...streamed, stream_options: { include_usage, usage: true } }, 400, unknown);
    await refused({ prompt: 'x', presence_penalty: 1 }, 400, /presence_penalty must/);
    await refused({ prompt: 'x', suffix: 'y' }, 400, /suffix must/);
    await refused({ prompt: [5000] }, 400, /prompt/);
    await refused({ prompt: 'a b c d e f g h i j k l m n o p q r s t u v w x y z' }, 400, /at most 20/);
    await refused({ prompt: 'x', model: 'gpt' }, 404, /no model/);
    await refused({ prompt: 'x'.repeat(5000) }, 413, /large/);
    const broken = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{',
    });
    expect(broken.status).toBe(400);
    const untyped = await fetch(`${url}/v1/completions`, { method: 'POST', body: '{"prompt": "x"}' });
    expect(untyped.status).toBe(415);
    expect(await untyped.json()).toMatchObject({
      error: { message: expect.stringContaining('application/json') as string },
    });
    const lost = await fetch(`${url}/nothing`);
    expect(lost.status).toBe(404);
    expect(await lost.json()).toMatchObject({
      error: { message: 'There is no GET /nothing.', type: 'invalid_request_error' },
    });
  });

  test('says which limit does not exist, and does not start', () => {
    const make = (limits: object) => () => createServer({} as ServedModel, { name: 'x', limits });
    expect(make({ actve: 1 })).toThrow(/^Unknown limit "actve"\. Limits: active, queue, /);
    expect(make({ active: '8' })).toThrow(/^Expected the limit active to be an integer, at least 1, got "8"/);
  });

  test('refuses a prompt that would take seconds to tokenize', async () => {
    const { url } = await serve();
    const response = await post(url, { prompt: 'the'.repeat(80_000) });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      error: {
        message: 'The prompt has 240000 characters; at most 127 tokens and 2032 characters are served.',
        param: 'prompt',
      },
    });
  });

  test('takes null for what it is free to choose', async () => {
    const { url } = await serve();
    const names = [
      'model',
      'max_tokens',
      'temperature',
      'top_p',
      'seed',
      'stop',
      'stream',
      'n',
      'echo',
      'presence_penalty',
    ];
    const response = await post(url, { prompt: 'x', ...Object.fromEntries(names.map((name) => [name, null])) });
    expect(response.status).toBe(200);
    expect(((await response.json()) as Completion).usage.completion_tokens).toBe(16);
  });

  test('loses no request of fifty clients, of whom half leave', async () => {
    const { url } = await serve({ active: 6 });
    const prompts = ['The sea', 'A whale', 'In the beginning', 'And', 'He said'];
    const alone = await Promise.all(
      prompts.map(async (prompt) =>
        readEvents(await post(url, { prompt, max_tokens: 40, temperature: 0, stream: true })),
      ),
    );
    const client = async (i: number) => {
      const body = { prompt: prompts[i % 5]!, max_tokens: 40, temperature: 0, stream: i % 4 < 2 };
      if (i % 2 === 0) {
        const response = await post(url, body);
        expect(response.status).toBe(200);
        const text = body.stream
          ? textOf(await readEvents(response))
          : ((await response.json()) as Completion).choices[0]!.text;
        expect(text).toBe(textOf(alone[i % 5]!));
        return 'served';
      }
      // Some leave while they wait, some while they are served, some after the first bytes.
      const controller = new AbortController();
      const atOnce = body.stream; // once something has come
      const leaving = atOnce ? undefined : sleep((i % 10) * 8).then(() => controller.abort());
      try {
        const response = await post(url, { ...body, max_tokens: 120 }, { signal: controller.signal });
        await response.body!.getReader().read();
        if (atOnce) controller.abort();
        await leaving;
        return 'left';
      } catch {
        return 'left';
      }
    };
    const fates = await Promise.all(Array.from({ length: 50 }, (_, i) => client(i)));
    expect(fates.filter((fate) => fate === 'served')).toHaveLength(25);
    await expect
      .poll(() => health(url), { timeout: 10_000 })
      .toMatchObject({ status: 'ok', active: 0, waiting: 0, failed: 0, refused: 0 });
    const { received, completed, aborted } = await health(url);
    // Those who left before their request was there are nobody's.
    expect(Number(received)).toBeGreaterThanOrEqual(5 + 25);
    expect(Number(completed) + Number(aborted)).toBe(received);
    expect(Number(aborted)).toBeGreaterThan(0);
  });

  test('turns away those for whom there is no room to wait', async () => {
    const { url } = await serve({ active: 1, queue: 2 });
    const responses = await Promise.all(
      Array.from({ length: 8 }, () => post(url, { prompt: 'The', max_tokens: 60, temperature: 0 })),
    );
    const statuses = responses.map(({ status }) => status).sort();
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(3);
    expect(statuses.at(-1)).toBe(429);
    expect(responses.find(({ status }) => status === 429)!.headers.get('retry-after')).toBe('1');
  });

  test('lets texts take turns', async () => {
    const { url } = await serve();
    const long = post(url, { prompt: 'The', max_tokens: 120, temperature: 0 })
      .then((r) => r.json())
      .then(() => performance.now());
    await sleep(20);
    const short = post(url, { prompt: 'And', max_tokens: 2, temperature: 0 })
      .then((r) => r.json())
      .then(() => performance.now());
    expect(await short).toBeLessThan(await long);
  });

  /** A model that gives what `tokens` gives. */
  const fake = (tokens: () => AsyncGenerator<object>) =>
    ({ config: { vocabSize: 10 }, maxContext: 100, generate: tokens }) as unknown as ServedModel;

  test('stops though a chat template does not', async () => {
    let asked = () => {};
    const begun = new Promise<void>((resolve) => (asked = resolve));
    const chatPrompt = () => (asked(), new Promise<number[]>(() => {}));
    const app = createServer({ ...fake(async function* () {}), chatPrompt }, { name: 'x', limits: { graceMs: 0 } });
    const url = await app.listen({ port: 0, host: '127.0.0.1' });
    const body = JSON.stringify({ messages: [{ role: 'user', content: 'x' }] });
    const answer = expect(
      fetch(`${url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body }),
    ).rejects.toThrow();
    await begun;
    await app.close();
    await answer;
  });

  test('cuts a stream that fails, and one that nobody reads', async () => {
    const logged = vi.fn();
    const { url: failing } = await serve(
      {},
      fake(async function* () {
        yield { id: 1, text: 'a' };
        throw new Error('broken weights');
      }),
      { onFailure: logged },
    );
    await expect(post(failing, { prompt: [1], stream: true }).then((response) => response.text())).rejects.toThrow();
    await expect.poll(() => health(failing).catch(String)).toMatchObject({ active: 0, failed: 1 });
    expect(logged).toHaveBeenCalledOnce();

    const { url: endless } = await serve(
      { stallMs: 100 },
      fake(async function* () {
        for (;;) yield { id: 1, text: 'a'.repeat(2 ** 20) };
      }),
    );
    await post(endless, { prompt: [1], stream: true }); // whose body is left where it is
    await expect
      .poll(() => health(endless).catch(String), { timeout: 10_000 })
      .toMatchObject({ active: 0, received: 1, aborted: 1 });
  });

  test.skipIf(process.platform === 'win32')('ends requests under way before it stops', async () => {
    const { url, server } = await start();
    const response = await post(url, { prompt: 'The', max_tokens: 110, temperature: 0, stream: true });
    server.kill('SIGTERM');
    expect((await readEvents(response)).at(-1)!.choices[0]!.finish_reason).toBe('length');
    if (server.exitCode === null) await once(server, 'exit');
    expect(server.exitCode).toBe(0);
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });

  test.skipIf(process.platform === 'win32')(
    'says that it stops, and waits for no connection without a request',
    async () => {
      const { url, server } = await start('--drain-seconds', '1');
      let errors = '';
      server.stderr!.on('data', (text) => (errors += text));
      const port = Number(new URL(url).port);
      const idle = connect(port, '127.0.0.1');
      const half = connect(port, '127.0.0.1');
      const late = connect(port, '127.0.0.1');
      await Promise.all(
        [idle, half, late].map((socket) =>
          once(
            socket.on('error', () => {}),
            'connect',
          ),
        ),
      );
      const head =
        'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n';
      half.write(`${head}{"prompt"`);
      late.write(head);
      await sleep(100); // for these bytes to arrive
      const exit = once(server, 'exit');
      server.kill('SIGTERM');
      await sleep(100);
      late.write('{"prompt":"The"}');
      const [answer] = (await once(late, 'data')) as [Buffer];
      expect(String(answer)).toMatch(/^HTTP\/1\.1 503[\s\S]*The server is about to stop\./);
      const stopped = performance.now();
      await exit;
      expect(performance.now() - stopped).toBeLessThan(10_000);
      expect(server.exitCode).toBe(0);
      expect(errors).toBe('');
    },
  );
});
