// How fast texts are written for several clients at once, beside llama.cpp as node-llama-cpp has it: prints one JSON document.
//
//   node bench/serve.mjs <folder that hqq quantized, or GGUF file> [<the same model as GGUF>] [--threads 1] [--rounds 3]
//
// Of a GGUF file alone both engines run that one.
//
// node-llama-cpp is that of interop/llama.cpp (npm install there), or of the folder that SERVE_LLAMA names. Both compute in this
// process, by turns, with as many threads. Times are of the processor, which other programs do not change as they change the clock's:
// with one thread they are the clock's on an idle machine.
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { loadLanguageModel } from 'hqq/runtime';
import { median } from './measure.mjs';

const TOKENS = 32; // of each client
const CLIENTS = [1, 2, 4, 8, 16];
const PROMPTS = [256, 1024];

const { positionals, flags } = parse(process.argv.slice(2));
const [folder, gguf = folder?.endsWith('.gguf') ? folder : undefined] = positionals;
const threads = Number(flags.threads ?? 1);
const rounds = Number(flags.rounds ?? 3);
if (!folder || !gguf)
  throw new Error('usage: node bench/serve.mjs <quantized folder or gguf> [<gguf>] [--threads 1] [--rounds 3]');

function parse(args) {
  const flags = {};
  const positionals = [];
  for (let i = 0; i < args.length; i++) {
    if (args[i].startsWith('--')) flags[args[i].slice(2)] = args[++i];
    else positionals.push(args[i]);
  }
  return { positionals, flags };
}

/** Seconds of processor time that `work` takes. */
async function seconds(work) {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

const promptOf = (client, length) => Array.from({ length }, (_, i) => 100 + ((client * 977 + i * 7919) % 40_000));

async function openHqq() {
  const model = await loadLanguageModel(resolve(folder), {
    activations: 'int8',
    threads,
    maxBatch: 16,
    prefixBytes: 0,
  });
  const write = async (ids, count) => {
    let written = 0;
    for await (const { id } of model.generate(ids, { maxTokens: count })) if (id >= 0) written++;
    return written;
  };
  return { name: 'hqq', write, close: () => model.close() };
}

async function openLlama() {
  const home = process.env.SERVE_LLAMA ?? fileURLToPath(new URL('../interop/llama.cpp', import.meta.url));
  const entry = createRequire(join(home, 'package.json')).resolve('node-llama-cpp');
  const { getLlama, LlamaLogLevel } = await import(pathToFileURL(entry).href);
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: LlamaLogLevel.error, maxThreads: threads });
  const model = await llama.loadModel({ modelPath: resolve(gguf) });
  const sequences = Math.max(...CLIENTS);
  const context = await model.createContext({
    contextSize: Math.max(...PROMPTS) + 64,
    sequences,
    threads,
    batchSize: 512,
  });
  const free = Array.from({ length: sequences }, () => context.getSequence());
  const write = async (ids, count) => {
    const sequence = free.pop();
    let written = 0;
    await sequence.clearHistory();
    for await (const id of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true }))
      if (id >= 0 && ++written === count) break;
    free.push(sequence);
    return written;
  };
  return { name: 'llama.cpp', write, close: () => llama.dispose() };
}

const engines = [await openHqq(), await openLlama()];
const cases = [
  ...CLIENTS.map((clients) => ({ kind: 'decode', clients, prompt: 8, tokens: TOKENS })),
  ...PROMPTS.map((prompt) => ({ kind: 'prompt', clients: 1, prompt, tokens: 1 })),
];
const rows = [];
for (const one of cases) {
  const rates = Object.fromEntries(engines.map(({ name }) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const { name, write } of engines) {
      let count = 0;
      const took = await seconds(async () => {
        const texts = Array.from({ length: one.clients }, (_, i) =>
          write(promptOf(i + 100 * round, one.prompt), one.tokens),
        );
        count = (await Promise.all(texts)).reduce((sum, written) => sum + written, 0);
      });
      if (round > 0) rates[name].push((one.kind === 'decode' ? count : one.prompt) / took); // the first one warms up
    }
  }
  const medians = Object.fromEntries(engines.map(({ name }) => [name, median(rates[name])]));
  rows.push({ ...one, tokensPerSecond: medians, ratio: medians.hqq / medians['llama.cpp'] });
  console.error(one.kind, one.clients, one.prompt, JSON.stringify(medians));
}
for (const { close } of engines) await close();
console.log(JSON.stringify({ threads, rounds, rows }, null, 2));
