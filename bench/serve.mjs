// How fast texts are written for several clients at once, by hqq and by other engines: prints one JSON document.
//
//   node bench/serve.mjs hqq=<folder or GGUF> llama.cpp=<GGUF>... transformers.js=<folder> [--threads 1] [--rounds 3] [--cases 1,2,8,p256]
//
// A case is a number of clients, who write 32 tokens each after a prompt of 8, or a prompt (p256, p1024), of which one token is written. Engines
// are processes of their own that take turns, a case after the other. node-llama-cpp is that of interop/llama.cpp, transformers.js that of
// interop/onnxruntime (npm install there), or of the folders that SERVE_LLAMA and SERVE_TRANSFORMERS name.
//
// Told are medians: tokens a second by the clock and by the processor's time, which other programs do not change as they change the clock's
// (with one thread both are the same on an idle machine); milliseconds until a client had its first token; and memory: after loading, and the peak.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { median } from './measure.mjs';

const TOKENS = 32; // of each client
const { engines: wanted, flags } = parse(process.argv.slice(2));
const threads = Number(flags.threads ?? 1);
const rounds = Number(flags.rounds ?? 3);
const cases = (flags.cases ?? '1,2,4,8,16,p256,p1024')
  .split(',')
  .map((name) =>
    name.startsWith('p')
      ? { name, clients: 1, prompt: Number(name.slice(1)), tokens: 1 }
      : { name, clients: Number(name), prompt: 8, tokens: TOKENS },
  );
if (wanted.length === 0 || cases.some(({ clients, prompt }) => !(clients > 0 && prompt > 0)))
  throw new Error(
    'usage: node bench/serve.mjs hqq=<model> [llama.cpp=<gguf>]... [--threads 1] [--rounds 3] [--cases 1,8,p256]',
  );

function parse(args) {
  const [flags, engines] = [{}, []];
  for (let i = 0; i < args.length; i++) {
    if (args[i].startsWith('--')) flags[args[i].slice(2)] = args[++i];
    else engines.push(args[i].split(/=(.*)/s));
  }
  return { engines, flags };
}

const sequences = Math.max(...cases.map(({ clients }) => clients));
const context = Math.max(...cases.map(({ prompt, tokens }) => prompt + tokens)) + 32;
const engines = [];
for (const [kind, path] of wanted) {
  const script = fileURLToPath(new URL('serve-engine.mjs', import.meta.url));
  const child = fork(script, [kind, path, threads, sequences, context].map(String));
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`${kind} ended with ${code}.`);
  });
  ended.catch(() => {});
  const told = async () => (await Promise.race([once(child, 'message'), ended]))[0];
  await told();
  engines.push({ name: `${kind}=${path}`, child, told });
}

const rows = [];
for (const { name, ...asked } of cases) {
  const results = Object.fromEntries(engines.map((engine) => [engine.name, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const engine of engines) {
      engine.child.send({ ...asked, round });
      const result = await engine.told();
      if (round > 0) results[engine.name].push(result); // the first one warms up
    }
  }
  const told = Object.fromEntries(
    Object.entries(results).map(([engine, all]) => {
      const rate = (time) => median(all.map((one) => (asked.tokens === 1 ? asked.prompt : one.count) / one[time]));
      const { memory } = all.at(-1);
      const firstMs = median(all.map(({ first }) => first));
      return [engine, { perSecond: rate('wall'), perProcessorSecond: rate('processor'), firstMs, memory }];
    }),
  );
  rows.push({ case: name, ...told });
  for (const [engine, one] of Object.entries(told))
    console.error(
      name,
      engine,
      JSON.stringify(one, (_, value) => (typeof value === 'number' ? +value.toPrecision(3) : value)),
    );
}
for (const { child } of engines) child.disconnect();
console.log(JSON.stringify({ threads, rounds, rows }, null, 2));
