import { once } from 'node:events';
import { basename, resolve } from 'node:path';
import { show } from '../../messages/errors.js';
import { isEncoderModel } from '../../runtime/encoder/encoder.js';
import { SentenceEncoder } from '../../runtime/encoder/sentences.js';
import { loadLanguageModel } from '../../runtime/load.js';
import { LOAD_OPTIONS } from '../../runtime/load-options.js';
import { MAX_TOKENS } from '../../runtime/text/generate-options.js';
import { checkKeys, readKeys } from '../../serve/keys.js';
import { loadFastify } from '../../serve/library.js';
import { listening, tryListening } from '../../serve/listen.js';
import { createEmbeddingServer, createServer } from '../../serve/server.js';
import { defineCommand } from '../command.js';
import {
  ACTIVATIONS,
  CACHE_DTYPE,
  count,
  fromOption,
  HEAD,
  MAX_CONTEXT,
  NO_PROGRESS,
  THREADS,
  text,
  UsageError,
} from '../flags.js';
import { say } from '../process.js';

const LIMIT = 2 ** 31;

export const serve = defineCommand({
  name: 'serve',
  args: ['model'],
  summary: "serve a language model with OpenAI's API",
  details: [
    'POST /v1/chat/completions, /v1/completions, of an encoder /v1/embeddings; GET /v1/models, /health, /metrics. <model> is a folder or a GGUF',
    'file, which is called by its name. Ctrl-C lets requests under way end. npm install fastify @huggingface/tokenizers @huggingface/jinja',
  ].join('\n'),
  flags: {
    host: text('address', 'where to listen; 0.0.0.0: on all addresses', { default: '127.0.0.1' }),
    port: count('port', 'where to listen; 0: any that is free', [0, 65_535], 8080),
    apiKeyFile: text('file', 'keys, one a line, of which each request must have one; without it none is needed'),
    name: text('name', 'what clients call the model; without it its last folder'),
    adapter: {
      help: 'LoRA adapter (a folder of peft) beside the weights, for clients that call the model so; may be given again',
      value: 'name=folder',
      accepts: (given) => typeof given === 'string' && /^[^=]+=./.test(given),
      expected: 'a name and a folder, as sql=./adapters/sql',
      repeats: true,
      type: [] as readonly string[],
    },
    maxBatch: fromOption(LOAD_OPTIONS.maxBatch),
    maxActive: count('n', 'texts that are written at once; more wait; without it max-batch', [1, LIMIT], 8),
    maxWaiting: count('n', 'texts that wait; more are answered with 429', [0, LIMIT], 64),
    maxTokens: count('n', 'most tokens of an answer', [1, MAX_TOKENS], 4096),
    drainSeconds: count('s', 'time that requests under way have when it is told to stop', [0, 3600], 10),
    prefixBytes: fromOption(LOAD_OPTIONS.prefixBytes),
    activations: ACTIVATIONS,
    head: HEAD,
    cacheDtype: CACHE_DTYPE,
    maxContext: MAX_CONTEXT,
    threads: THREADS,
    quiet: NO_PROGRESS,
  },
  plan(
    [path],
    {
      host = '127.0.0.1',
      port = 8080,
      apiKeyFile,
      name,
      adapter = [],
      maxActive,
      maxWaiting,
      maxTokens,
      drainSeconds = 10,
      quiet,
      ...load
    },
  ) {
    const called = name ?? basename(resolve(path!));
    const adapters = adaptersOf(adapter, called);
    return async ({ signal, print }) => {
      const address = { host, port };
      loadFastify(); // before gigabytes are read
      await tryListening(address);
      const checkKey = apiKeyFile === undefined ? undefined : checkKeys(await readKeys(apiKeyFile));
      const encodes = await isEncoderModel(path!);
      const limits = {
        active: maxActive ?? load.maxBatch ?? LOAD_OPTIONS.maxBatch.default,
        graceMs: 1000 * drainSeconds,
        ...(maxWaiting === undefined ? {} : { queue: maxWaiting }),
        ...(maxTokens === undefined ? {} : { maxTokens }),
      };
      if (encodes && adapter.length > 0) throw new UsageError('An encoder takes no --adapter.');
      const options = { name: called, limits, checkKey, onFailure: (error: unknown) => say(String(error)) };
      const { activations, threads } = load;
      const [model, server] = encodes
        ? await SentenceEncoder.load(path!, { activations, threads, signal }).then(
            (encoder) => [encoder, createEmbeddingServer(encoder, options)] as const,
          )
        : await loadLanguageModel(path!, { ...load, adapters, signal }).then(
            (loaded) => [loaded, createServer(loaded, options)] as const,
          );
      try {
        const url = await listening(address, () => server.listen(address));
        const beside = Object.keys(adapters);
        print(`serving ${called}${beside.length > 0 ? ` and ${beside.join(', ')}` : ''} on ${url}\n`);
        if (!signal.aborted) await once(signal, 'abort');
        if (!quiet) say('stopping: requests under way may end; the same signal again stops at once');
      } finally {
        await server.close();
        await model.close();
      }
    };
  },
});

/** Folders by name. */
function adaptersOf(given: readonly string[], model: string): Readonly<Record<string, string>> {
  const pairs = given.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)] as const);
  const names = pairs.map(([name]) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) throw new UsageError(`--adapter ${show(twice)} is given twice.`);
  if (names.includes(model)) {
    const message = `Expected --adapter to have another name than the model, ${show(model)}: clients choose one by it.`;
    throw new UsageError(`${message} --name gives the model another.`);
  }
  return Object.fromEntries(pairs);
}
