// An OpenAI-style completion server on hqq/runtime: one process, one model, many clients that take turns token by token.
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import fastify from 'fastify';
import { Gate } from './gate.mjs';

/** What a server bears before it says no: memory and time are finite, and clients are strangers. */
export const LIMITS = {
  /** Texts that are generated at once: each has a cache of keys and values. */
  active: 8,
  /** Requests that wait for one of these to end; more get 429. */
  queue: 64,
  maxTokens: 1024,
  promptTokens: 4096,
  bodyBytes: 256 * 1024,
  /** Milliseconds that a client may leave a stream unread: its place is one that others wait for. */
  stallMs: 30_000,
  /** Milliseconds that requests under way have when the server is told to stop. */
  graceMs: 10_000,
};

const integer = (minimum, maximum) => ({ type: 'integer', minimum, maximum });
const number = (minimum, maximum) => ({ type: 'number', minimum, maximum });
const text = { type: 'string', minLength: 1, maxLength: 256 };
/** A field that may be null, as clients write what they leave to the server. */
const optional = (schema) => ({ anyOf: [{ type: 'null' }, schema] });

/** The request, as the OpenAI API has it. What would be ignored and matters is refused; unknown fields are dropped. */
const bodySchema = (limits, vocabSize) => ({
  type: 'object',
  required: ['prompt'],
  properties: {
    model: optional({ type: 'string' }),
    prompt: {
      anyOf: [
        { type: 'string', minLength: 1 },
        { type: 'array', items: integer(0, vocabSize - 1), minItems: 1 },
      ],
    },
    max_tokens: optional(integer(1, limits.maxTokens)),
    temperature: optional(number(0, 2)),
    top_p: optional({ type: 'number', exclusiveMinimum: 0, maximum: 1 }),
    top_k: optional(integer(0, 1_000_000)),
    min_p: optional(number(0, 1)),
    repetition_penalty: optional(number(0.1, 10)),
    seed: optional(integer(0, Number.MAX_SAFE_INTEGER)),
    stop: { anyOf: [{ type: 'null' }, text, { type: 'array', items: text, maxItems: 4 }] },
    stream: optional({ type: 'boolean' }),
    n: { enum: [1, null] },
    best_of: { enum: [1, null] },
    echo: { enum: [false, null] },
    presence_penalty: { enum: [0, null] },
    frequency_penalty: { enum: [0, null] },
    logprobs: { type: 'null' },
    logit_bias: { type: 'null' },
    suffix: { type: 'null' },
  },
});

const failure = (status, message, type = 'invalid_request_error') =>
  Object.assign(new Error(message), { statusCode: status, type });

/** Makes a server on a model of `loadLanguageModel`. `listen` and `close` it; `close` waits for requests under way. */
export function createServer(model, name, given = {}) {
  const limits = { ...LIMITS, ...given };
  const gate = new Gate(limits.active, limits.queue);
  const running = new Set();
  const counts = { received: 0, completed: 0, aborted: 0, refused: 0, failed: 0 };
  let closing = false;

  const app = fastify({
    bodyLimit: limits.bodyBytes,
    requestTimeout: 30_000, // for the request to arrive
    ajv: { customOptions: { coerceTypes: false } },
    forceCloseConnections: 'idle',
    return503OnClosing: false, // those who are waiting get their answer
  });

  app.setErrorHandler((error, request, reply) => {
    const status = error.statusCode ?? (error.code === 'ERR_INVALID_ARGUMENT' || error.code === 'ERR_INVALID_OPTION' ? 400 : 500);
    if (status >= 500) {
      counts.failed++;
      console.error(error);
    }
    const message = status >= 500 ? 'The server failed.' : error.message;
    const type = error.type ?? (status >= 500 ? 'server_error' : 'invalid_request_error');
    if (status === 429) reply.header('retry-after', '1');
    reply.code(status).send({ error: { message, type, param: null, code: null } });
  });

  app.setNotFoundHandler((request) => {
    throw failure(404, `There is no ${request.method} ${request.url.slice(0, 100)}.`);
  });

  app.get('/health', (request, reply) => {
    reply
      .code(closing ? 503 : 200)
      .send({ status: closing ? 'closing' : 'ok', active: running.size - gate.waiting, waiting: gate.waiting, ...counts });
  });
  app.get('/v1/models', () => ({ object: 'list', data: [{ id: name, object: 'model', created: 0, owned_by: 'hqq' }] }));

  app.post('/v1/completions', { schema: { body: bodySchema(limits, model.config.vocabSize) } }, async (request, reply) => {
    const { body } = request;
    if (closing) throw failure(503, 'The server is about to stop.', 'server_error');
    if ((body.model ?? name) !== name)
      throw failure(404, `There is no model ${JSON.stringify(body.model)}, only ${name}.`);
    const ids = typeof body.prompt === 'string' ? (await model.tokenizer()).encode(body.prompt) : body.prompt;
    const most = Math.min(limits.promptTokens, model.maxContext - 1);
    if (ids.length > most) throw failure(400, `The prompt has ${ids.length} tokens; at most ${most} are served.`);

    const controller = new AbortController();
    const { signal } = controller;
    reply.raw.on('close', () => {
      if (!reply.raw.writableFinished) controller.abort(new Error('The client left.'));
    });
    running.add(controller);
    counts.received++;
    let leave;
    try {
      leave = await gate.enter(signal);
      if (!leave) {
        counts.refused++;
        throw failure(429, 'Too many requests are waiting.', 'rate_limit_error');
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
      const result = await (body.stream ? stream : collect)(reply, tokens, answer, ids.length, controller, limits);
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
    const timer = setTimeout(
      () => running.forEach((controller) => controller.abort(new Error('The server stops.'))),
      limits.graceMs,
    );
    while (running.size > 0) await new Promise((resolve) => setTimeout(resolve, 10));
    clearTimeout(timer);
  });
  return app;
}

const choice = (text, finish = null) => ({ text, index: 0, logprobs: null, finish_reason: finish });

async function collect(reply, tokens, answer, promptTokens) {
  let whole = '';
  let count = 0;
  let finish = null;
  for await (const token of tokens) {
    whole += token.text;
    count++;
    finish = token.finish ?? null;
  }
  const usage = { prompt_tokens: promptTokens, completion_tokens: count, total_tokens: promptTokens + count };
  return { ...answer, choices: [choice(whole, finish)], usage };
}

/** Server-sent events: one for every token that completes some text, then `[DONE]`. */
async function stream(reply, tokens, answer, promptTokens, controller, { stallMs }) {
  const { raw } = reply;
  const send = async (data) => {
    if (raw.write(`data: ${data}\n\n`)) return;
    // A client that reads slowly slows its own text down; one that does not read at all ends it.
    const timer = setTimeout(() => controller.abort(new Error('The client does not read.')), stallMs);
    await once(raw, 'drain', { signal: controller.signal }).finally(() => clearTimeout(timer));
  };
  let begun = false;
  for await (const { text, finish } of tokens) {
    if (!begun) {
      reply.hijack();
      raw.writeHead(200, {
        'content-type': 'text/event-stream; charset=utf-8',
        'cache-control': 'no-store',
        'x-accel-buffering': 'no',
      });
      begun = true;
    }
    if (text !== '' || finish) await send(JSON.stringify({ ...answer, choices: [choice(text, finish)] }));
  }
  await send('[DONE]');
  raw.end();
}
