import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { onAbort, untilAborted } from '../compute/signal.js';
import { HqqError, show } from '../messages/errors.js';
import { StreamedAnswer, WholeAnswer } from './answer.js';
import { type EmbeddingBody, embed, embeddingSchema, type ServedEncoder } from './embeddings.js';
import { Failure, failureOf } from './failure.js';
import { Gate } from './gate.js';
import type { KeyCheck } from './keys.js';
import { loadFastify } from './library.js';
import { type Limits, resolveLimits } from './limits.js';
import { Metrics } from './metrics.js';
import { type ChatBody, type CompletionBody, noModel, Requests, type ServedModel, type Texts } from './requests.js';
import { chatSchema, completionSchema, explain, type Schema } from './schema.js';

/** What a server is made of besides its model. */
export interface ServerOptions {
  /** As clients call the model. */
  readonly name: string;
  readonly limits?: Readonly<Partial<Limits>>;
  /** Checks the API key of each request but `/health`; absent: nobody needs one. */
  readonly checkKey?: KeyCheck | undefined;
  /** Is told of failures that clients are not told of. */
  readonly onFailure?: (error: unknown) => void;
}

/**
 * A server with OpenAI's API on a model of `loadLanguageModel`: one process, one model, many clients whose texts are decoded together.
 * Adapters that the model was loaded with are models of their own names, whose parent it is. `listen` and `close` it; `close` waits for
 * requests under way.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION` for an adapter that is called as the model is
 */
export function createServer(model: ServedModel, options: ServerOptions): FastifyInstance {
  const { adapters = [] } = model;
  if (adapters.includes(options.name)) throw sameName(options.name);
  const server = new Server(options, adapters);
  server.addTexts(model);
  return server.app;
}

/** The same for vectors of texts, on an encoder. */
export function createEmbeddingServer(encoder: ServedEncoder, options: ServerOptions): FastifyInstance {
  const server = new Server(options);
  server.addEmbeddings(encoder);
  return server.app;
}

/** The error for an adapter that clients could not tell from the model. */
export function sameName(name: string): HqqError {
  const message = `Expected adapters to have other names than the model, ${show(name)}`;
  return new HqqError('ERR_INVALID_OPTION', `${message}: clients choose one by it. --name gives the model another.`);
}

class Server {
  readonly app: FastifyInstance;
  readonly #name: string;
  readonly #limits: Limits;
  readonly #gate: Gate;
  /** For those that are tokenized: one thread does it, before a text has its place. */
  readonly #readers: Gate;
  readonly #metrics = new Metrics();
  readonly #running = new Set<AbortController>();
  readonly #onFailure: (error: unknown) => void;
  #closing = false;

  /** @param adapters What else clients may ask for. */
  constructor(
    { name, limits = {}, checkKey, onFailure = console.error }: ServerOptions,
    adapters: readonly string[] = [],
  ) {
    this.#name = name;
    this.#limits = resolveLimits(limits);
    this.#gate = new Gate(this.#limits.active, this.#limits.queue);
    this.#readers = new Gate(this.#limits.active, this.#limits.queue);
    this.#onFailure = onFailure;
    this.app = loadFastify()({
      bodyLimit: this.#limits.bodyBytes,
      requestTimeout: 30_000, // for the request to arrive
      ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
      forceCloseConnections: 'idle',
      return503OnClosing: false, // those who are waiting get their answer
    });
    this.app.removeContentTypeParser('text/plain');
    if (checkKey) {
      this.app.addHook('onRequest', async ({ url, headers }) => {
        if (url !== '/health') checkKey(headers.authorization);
      });
    }
    this.app.setErrorHandler((error, _request, reply) => this.#tell(error, reply));
    this.app.setNotFoundHandler(({ method, url }) => {
      throw new Failure(404, `There is no ${method} ${url.slice(0, 100)}.`, { code: 'unknown_url' });
    });
    this.#addRoutes(adapters);
    this.app.addHook('preClose', () => this.#drain());
  }

  #addRoutes(adapters: readonly string[]): void {
    const { app } = this;
    const common = { object: 'model', created: 0, owned_by: 'hqq' };
    const base = { id: this.#name, ...common };
    const data = [base, ...adapters.map((id) => ({ id, ...common, root: id, parent: base.id }))];
    app.get('/v1/models', () => ({ object: 'list', data }));
    app.get<{ Params: { '*': string } }>('/v1/models/*', ({ params }) => {
      const found = data.find(({ id }) => id === params['*']);
      if (found) return found;
      throw noModel(params['*'], this.#name, adapters);
    });
    app.get('/health', (_request, reply) => {
      const { active, waiting } = this.#gate;
      const status = this.#closing ? 'closing' : 'ok';
      return reply.code(this.#closing ? 503 : 200).send({ status, active, waiting, ...this.#metrics.requests });
    });
    app.get('/metrics', (_request, reply) =>
      reply.type('text/plain; version=0.0.4; charset=utf-8').send(this.#metrics.text(this.#gate)),
    );
  }

  /** What a language model does. */
  addTexts(model: ServedModel): void {
    const requests = new Requests(model, this.#name, this.#limits);
    const write = (reply: FastifyReply, read: (signal: AbortSignal) => Promise<Texts>) =>
      this.#serve(reply, async (controller) => {
        this.#metrics.requests.received++;
        const texts = await this.#read(read, controller.signal);
        if (this.#gate.room < texts.asked.prompts.length) throw this.#crowded();
        if (texts.stream) {
          const answer = new StreamedAnswer(texts.asked, reply.raw, controller, () => reply.hijack());
          await this.#writeAll(model, texts, answer, controller);
          await answer.end();
          return undefined;
        }
        const answer = new WholeAnswer(texts.asked);
        await this.#writeAll(model, texts, answer, controller);
        return answer.document;
      });
    const completion = completionSchema(this.#limits, model.config.vocabSize);
    this.#route<CompletionBody>('/v1/completions', completion, (body, reply) =>
      write(reply, () => requests.completion(body)),
    );
    this.#route<ChatBody>('/v1/chat/completions', chatSchema(this.#limits), (body, reply) =>
      write(reply, (signal) => requests.chat(body, signal)),
    );
  }

  /** Turns a request into ids, when it is its turn. */
  async #read(read: (signal: AbortSignal) => Promise<Texts>, signal: AbortSignal): Promise<Texts> {
    const leave = this.#gate.room > 0 ? await this.#readers.enter(signal) : undefined;
    if (!leave) throw this.#crowded();
    // Its place is taken until the tokenizer is done with it, whether or not its client still waits.
    return untilAborted(read(signal).finally(leave), signal);
  }

  /** What an encoder does. */
  addEmbeddings(encoder: ServedEncoder): void {
    this.#route<EmbeddingBody>('/v1/embeddings', embeddingSchema(encoder.vocabSize), (body, reply) =>
      this.#serve(reply, async ({ signal }) => {
        if ((body.model ?? this.#name) !== this.#name) throw noModel(body.model!, this.#name);
        this.#metrics.requests.received++;
        const leave = await this.#gate.enter(signal);
        if (!leave) throw this.#crowded();
        try {
          const { answer, tokens } = await embed(encoder, this.#name, body, this.#limits, signal);
          this.#metrics.tokens.prompt += tokens;
          return answer;
        } finally {
          leave();
        }
      }),
    );
  }

  #route<T>(url: string, body: Schema, serve: (body: T, reply: FastifyReply) => Promise<object | undefined>): void {
    const options = { schema: { body }, schemaErrorFormatter: explain(body) as never };
    this.app.post(url, options, (request: FastifyRequest, reply: FastifyReply) => serve(request.body as T, reply));
  }

  async #serve(
    reply: FastifyReply,
    work: (controller: AbortController) => Promise<object | undefined>,
  ): Promise<object | undefined> {
    const controller = new AbortController();
    const { signal } = controller;
    const { requests } = this.#metrics;
    reply.raw.on('close', () => {
      if (!reply.raw.writableFinished) controller.abort(new Error('The client left.'));
    });
    if (this.#closing) throw new Failure(503, 'The server is about to stop.');
    this.#running.add(controller);
    try {
      const result = await work(controller);
      requests.completed++;
      return result;
    } catch (error) {
      const left = signal.aborted && !(error instanceof Failure);
      if (!left && !reply.sent) throw error;
      // Nobody is there to be told, or the answer has begun: a stream that cannot go on is cut.
      if (left) requests.aborted++;
      else {
        requests.failed++;
        this.#onFailure(error);
      }
      if (!reply.sent) reply.hijack();
      reply.raw.destroy();
      return undefined;
    } finally {
      this.#running.delete(controller);
    }
  }

  /** Writes all texts of a request. Where one fails, none goes on. */
  async #writeAll(
    model: ServedModel,
    texts: Texts,
    answer: StreamedAnswer | WholeAnswer,
    { signal }: AbortController,
  ): Promise<void> {
    const group = new AbortController();
    const release = onAbort(signal, () => group.abort(signal.reason));
    let failure: { readonly error: unknown } | undefined;
    const write = (_: unknown, index: number) =>
      this.#write(model, texts, index, answer, group.signal).catch((error: unknown) => {
        failure ??= { error };
        group.abort(error);
      });
    await Promise.all(texts.asked.prompts.map(write)).finally(release);
    if (failure) throw failure.error;
  }

  async #write(
    model: ServedModel,
    texts: Texts,
    index: number,
    answer: StreamedAnswer | WholeAnswer,
    signal: AbortSignal,
  ): Promise<void> {
    const asked = performance.now();
    const { tokens: counts } = this.#metrics;
    const leave = await this.#gate.enter(signal);
    if (!leave) throw this.#crowded();
    try {
      const prompt = texts.asked.prompts[index]!;
      counts.prompt += prompt.length;
      let count = 0;
      for await (const token of model.generate(prompt, { ...texts.options(index), signal })) {
        if (count++ === 0) this.#metrics.first((performance.now() - asked) / 1000);
        counts.reused += token.prompt?.reused ?? 0;
        counts.written++;
        await answer.take(index, token);
      }
    } finally {
      leave();
    }
  }

  #crowded(): Failure {
    this.#metrics.requests.refused++;
    return new Failure(429, 'Too many texts are waiting.', { type: 'rate_limit_error', code: 'rate_limit_exceeded' });
  }

  #tell(error: unknown, reply: FastifyReply): void {
    const { failure, unforeseen } = failureOf(error);
    if (unforeseen) {
      this.#metrics.requests.failed++;
      this.#onFailure(error);
    }
    const { statusCode, message, type, param, code } = failure;
    if (statusCode === 429 || statusCode === 503) reply.header('retry-after', '1');
    reply.code(statusCode).send({ error: { message, type, param, code } });
  }

  async #drain(): Promise<void> {
    this.#closing = true;
    const end = setTimeout(() => {
      for (const controller of this.#running) controller.abort(new Error('The server stops.'));
      this.app.server.closeAllConnections(); // those on which no whole request has come would be waited for, too
    }, this.#limits.graceMs);
    end.unref();
    while (this.#running.size > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
