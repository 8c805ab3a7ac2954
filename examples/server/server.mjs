// An OpenAI-style completion server on hqq/runtime: one process, one model, many clients that take turns token by token.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import fastify from 'fastify';
import { Gate } from './gate.mjs';
import { bodySchema, explain, failure } from './request.mjs';

/** What a server bears before it says no: memory and time are finite, and clients are strangers. */
export const LIMITS = {
  /** Texts that are generated at once: each has a cache of keys and values. */
  active: 8,
  /** Requests that wait for one of these to end; more get 429. */
  queue: 64,
  maxTokens: 1024,
  promptTokens: 4096,
  /** Characters that a prompt may have for each token: texts have 3 to 6. Tokenizing 256 kB can take seconds, and all wait for it. */
  tokenCharacters: 16,
  bodyBytes: 256 * 1024,
  /** Milliseconds that a client may leave a stream unread: its place is one that others wait for. */
  stallMs: 30_000,
  /** Milliseconds that requests under way have when the server is told to stop. */
  graceMs: 10_000,
};

/** What Fastify says shorter than helps. */
const MESSAGES = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'The body must be JSON, and the header content-type application/json.',
};

/** The limits that a server keeps: `given` in place of the defaults. */
function resolveLimits(given) {
  for (const [name, value] of Object.entries(given)) {
    const names = Object.keys(LIMITS);
    if (!names.includes(name)) throw new Error(`Unknown limit ${JSON.stringify(name)}. Limits: ${names.join(', ')}.`);
    const least = name === 'queue' || name === 'graceMs' ? 0 : 1;
    if (!Number.isSafeInteger(value) || value < least)
      throw new Error(`Expected the limit ${name} to be an integer, at least ${least}, got ${JSON.stringify(value)}.`);
  }
  return { ...LIMITS, ...given };
}

/** Makes a server on a model of `loadLanguageModel`. `listen` and `close` it; `close` waits for requests under way. */
export function createServer(model, name, given = {}) {
  const limits = resolveLimits(given);
  const schema = { body: bodySchema(limits, model.config.vocabSize) };
  const gate = new Gate(limits.active, limits.queue);
  const running = new Set();
  const counts = { received: 0, completed: 0, aborted: 0, refused: 0, failed: 0 };
  let closing = false;

  const app = fastify({
    bodyLimit: limits.bodyBytes,
    requestTimeout: 30_000, // for the request to arrive
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
    schemaErrorFormatter: explain(schema.body),
    forceCloseConnections: 'idle',
    return503OnClosing: false, // those who are waiting get their answer
  });

  app.removeContentTypeParser('text/plain');
  app.setErrorHandler((error, _request, reply) => {
    const status =
      error.statusCode ?? (error.code === 'ERR_INVALID_ARGUMENT' || error.code === 'ERR_INVALID_OPTION' ? 400 : 500);
    const unforeseen = status >= 500 && !error.told;
    if (unforeseen) {
      counts.failed++;
      console.error(error);
    }
    const message = unforeseen ? 'The server failed.' : (MESSAGES[error.code] ?? error.message);
    const type = error.type ?? (status >= 500 ? 'server_error' : 'invalid_request_error');
    if (status === 429 || status === 503) reply.header('retry-after', '1');
    reply.code(status).send({ error: { message, type, param: error.param ?? null, code: null } });
  });

  app.setNotFoundHandler((request) => {
    throw failure(404, `There is no ${request.method} ${request.url.slice(0, 100)}.`);
  });

  app.get('/health', (_request, reply) => {
    reply.code(closing ? 503 : 200).send({
      status: closing ? 'closing' : 'ok',
      active: running.size - gate.waiting,
      waiting: gate.waiting,
      ...counts,
    });
  });
  app.get('/v1/models', () => ({ object: 'list', data: [{ id: name, object: 'model', created: 0, owned_by: 'hqq' }] }));

  async function encode(prompt, most) {
    const characters = most * limits.tokenCharacters;
    if (prompt.length <= characters) return (await model.tokenizer()).encode(prompt);
    const message = `The prompt has ${prompt.length} characters; at most ${most} tokens and ${characters} characters are served.`;
    throw failure(400, message, { param: 'prompt' });
  }

  app.post('/v1/completions', { schema }, async (request, reply) => {
    const { body } = request;
    const controller = new AbortController();
    const { signal } = controller;
    reply.raw.on('close', () => {
      if (!reply.raw.writableFinished) controller.abort(new Error('The client left.'));
    });
    if (closing) throw failure(503, 'The server is about to stop.', { type: 'server_error' });
    if ((body.model ?? name) !== name)
      throw failure(404, `There is no model ${JSON.stringify(body.model)}, only ${name}.`, { param: 'model' });
    if (body.stream_options && !body.stream)
      throw failure(400, 'stream_options is only allowed when stream is true.', { param: 'stream_options' });
    running.add(controller);
    let leave;
    try {
      const most = Math.min(limits.promptTokens, model.maxContext - 1);
      const ids = typeof body.prompt === 'string' ? await encode(body.prompt, most) : body.prompt;
      if (ids.length > most)
        throw failure(400, `The prompt has ${ids.length} tokens; at most ${most} are served.`, { param: 'prompt' });
      counts.received++;
      leave = await gate.enter(signal);
      if (!leave) {
        counts.refused++;
        throw failure(429, 'Too many requests are waiting.', { type: 'rate_limit_error' });
      }
      const tokens = model.generate(ids, {
        maxTokens: body.max_tokens ?? 16,
        temperature: (body.temperature ?? 1) < 1e-3 ? 0 : (body.temperature ?? 1),
        topP: body.top_p ?? undefined,
        topK: body.top_k ?? undefined,
        minP: body.min_p ?? undefined,
        repetitionPenalty: body.repetition_penalty ?? undefined,
        seed: body.seed ?? undefined,
        stop: body.stop ?? [],
        signal,
      });
      const answer = {
        id: `cmpl-${randomUUID()}`,
        object: 'text_completion',
        created: Math.floor(Date.now() / 1000),
        model: name,
      };
      const result = body.stream
        ? await stream(
            reply,
            tokens,
            answer,
            ids.length,
            body.stream_options?.include_usage === true,
            controller,
            limits,
          )
        : await collect(tokens, answer, ids.length);
      counts.completed++;
      return result;
    } catch (error) {
      if (!signal.aborted && !reply.sent) throw error;
      // Nobody is there to be told, or the answer has begun: a stream that cannot go on is cut.
      if (signal.aborted) counts.aborted++;
      else {
        counts.failed++;
        console.error(error);
      }
      reply.hijack();
      reply.raw.destroy();
    } finally {
      leave?.();
      running.delete(controller);
    }
  });

  app.addHook('preClose', async () => {
    closing = true;
    setTimeout(() => {
      running.forEach((controller) => controller.abort(new Error('The server stops.')));
      app.server.closeAllConnections(); // those on which no whole request has come would be waited for, too
    }, limits.graceMs).unref();
    while (running.size > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  });
  return app;
}

const choice = (text, finish = null) => ({ text, index: 0, logprobs: null, finish_reason: finish });

const usageOf = (promptTokens, completionTokens) => ({
  prompt_tokens: promptTokens,
  completion_tokens: completionTokens,
  total_tokens: promptTokens + completionTokens,
});

async function collect(tokens, answer, promptTokens) {
  let whole = '';
  let count = 0;
  let finish = null;
  for await (const token of tokens) {
    whole += token.text;
    count++;
    finish = token.finish ?? null;
  }
  return { ...answer, choices: [choice(whole, finish)], usage: usageOf(promptTokens, count) };
}

/** Server-sent events: one for every token that completes some text, one with the usage if it is asked for, then `[DONE]`. */
async function stream(reply, tokens, answer, promptTokens, includeUsage, controller, { stallMs }) {
  const { raw } = reply;
  const send = async (data) => {
    if (raw.write(`data: ${data}\n\n`)) return;
    // A client that reads slowly slows its own text down; one that does not read at all ends it.
    const timer = setTimeout(() => controller.abort(new Error('The client does not read.')), stallMs);
    await once(raw, 'drain', { signal: controller.signal }).finally(() => clearTimeout(timer));
  };
  const sendChunk = (choices, usage) =>
    send(JSON.stringify({ ...answer, choices, ...(includeUsage ? { usage } : {}) }));
  let count = 0;
  for await (const { text, finish } of tokens) {
    if (count++ === 0) {
      reply.hijack();
      raw.writeHead(200, {
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no',
      });
    }
    if (text !== '' || finish) await sendChunk([choice(text, finish)], null);
  }
  if (includeUsage) await sendChunk([], usageOf(promptTokens, count));
  await send('[DONE]');
  raw.end();
}
