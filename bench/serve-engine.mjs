// One engine of bench/serve.mjs, in a process of its own: so its memory is its own. Does what its parent sends it, a case at a time.
import { createRequire } from 'node:module';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { median } from './measure.mjs';

const [kind, path, threadsText, sequencesText, contextText] = process.argv.slice(2);
const [threads, sequences, contextSize] = [threadsText, sequencesText, contextText].map(Number);

/** A module of a folder of interop/, or of another folder where it is installed. */
async function installed(name, folder, variable) {
  const home = process.env[variable] ?? fileURLToPath(new URL(`../interop/${folder}`, import.meta.url));
  return import(pathToFileURL(createRequire(join(home, 'package.json')).resolve(name)).href);
}

// Each gives write(ids, count, onToken), which writes `count` tokens after a prompt, greedily.
const ENGINES = {
  async hqq() {
    const { loadLanguageModel } = await import('hqq/runtime');
    const options = { activations: 'int8', threads, maxBatch: sequences, prefixBytes: 0 };
    const model = await loadLanguageModel(resolve(path), options);
    return async (ids, count, onToken) => {
      for await (const _ of model.generate(ids, { maxTokens: count })) onToken();
    };
  },

  async 'llama.cpp'() {
    const { getLlama, LlamaLogLevel } = await installed('node-llama-cpp', 'llama.cpp', 'SERVE_LLAMA');
    const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error, maxThreads: threads });
    const model = await llama.loadModel({ modelPath: resolve(path) });
    const context = await model.createContext({ contextSize, sequences, threads, batchSize: 512 });
    const free = Array.from({ length: sequences }, () => context.getSequence());
    return async (ids, count, onToken) => {
      const sequence = free.pop();
      await sequence.clearHistory();
      let written = 0;
      for await (const _ of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
        onToken();
        if (++written === count) break;
      }
      free.push(sequence);
    };
  },

  async 'transformers.js'() {
    const { AutoModelForCausalLM, Tensor, env } = await installed(
      '@huggingface/transformers',
      'onnxruntime',
      'SERVE_TRANSFORMERS',
    );
    env.allowRemoteModels = false;
    env.localModelPath = dirname(resolve(path));
    const model = await AutoModelForCausalLM.from_pretrained(basename(resolve(path)), {
      ...{ dtype: 'q4', device: 'cpu', session_options: { intraOpNumThreads: threads, interOpNumThreads: 1 } },
    });
    const text = (ids) => new Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]);
    return async (ids, count, onToken) => {
      await model.generate({
        ...{ inputs: text(ids), attention_mask: text(ids.map(() => 1)) },
        ...{ max_new_tokens: count, min_new_tokens: count, do_sample: false },
        streamer: { put: (given) => given[0].length === 1 && onToken(), end() {} },
      });
    };
  },
};

const promptOf = (client, length) => Array.from({ length }, (_, i) => 100 + ((client * 977 + i * 7919) % 40_000));

const write = await ENGINES[kind]();
const loaded = process.memoryUsage().rss;

process.on('message', async ({ clients, prompt, tokens, round }) => {
  const [began, before] = [performance.now(), process.cpuUsage()];
  const firsts = [];
  let count = 0;
  const texts = Array.from({ length: clients }, async (_, i) => {
    let own = 0;
    await write(promptOf(i + 100 * round, prompt), tokens, () => {
      count++;
      if (own++ === 0) firsts.push(performance.now() - began);
    });
  });
  await Promise.all(texts);
  const wall = (performance.now() - began) / 1e3;
  const { user, system } = process.cpuUsage(before);
  const memory = { loaded, peak: process.resourceUsage().maxRSS * 1024, now: process.memoryUsage().rss };
  process.send({ count, wall, processor: (user + system) / 1e6, first: median(firsts), memory });
});
process.on('disconnect', () => process.exit(0));
process.send('ready');
