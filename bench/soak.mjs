// Whether `hqq serve` loses requests, waits or grows under clients of whom half leave: prints one JSON document, and fails where it does.
//
//   node bench/soak.mjs <model> [--requests 10000] [--clients 50] [--tokens 8] [--set --activations=int8]...
//
// Clients ask one request after the other: a quarter for a whole text, a quarter for a stream that they read to the end; a quarter leaves its
// stream after the first bytes, a quarter within 20 ms, before or after there is an answer. Texts that are read are compared with the first of the
// same prompt: lost are those that fail or are not all there, wrong those that differ. The event loop is the server's; memory is told a hundred
// times; it grows by what the median of the last fifth is above that of the second. The server keeps caches of texts up to --prefix-bytes: with
// --set --prefix-bytes=33554432 they are full early.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { constants, setPriority } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { median } from './measure.mjs';

const { model, flags, more } = parse(process.argv.slice(2));
const requests = Number(flags.requests ?? 10_000);
const clients = Number(flags.clients ?? 50);
const tokens = Number(flags.tokens ?? 8);
if (!model || !(requests > 0 && clients > 0 && tokens > 0))
  throw new Error(
    'usage: node bench/soak.mjs <model> [--requests 10000] [--clients 50] [--tokens 8] [--set --threads=1]',
  );

function parse(args) {
  const [flags, more, positionals] = [{}, [], []];
  for (let i = 0; i < args.length; i++) {
    if (args[i] === '--set') more.push(args[++i]);
    else if (args[i].startsWith('--')) flags[args[i].slice(2)] = args[++i];
    else positionals.push(args[i]);
  }
  return { model: positionals[0], flags, more };
}

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const args = ['serve', model, '--port', '0', '--max-waiting', String(clients), ...more];
const server = fork(at('../dist/cli.mjs'), args, {
  execArgv: ['--import', at('soak-watch.mjs')],
  stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
});
setPriority(constants.priority.PRIORITY_LOW); // clients are elsewhere, as a rule
const ended = once(server, 'exit');
let output = '';
const url = await new Promise((resolve, reject) => {
  server.stdout.on('data', (text) => {
    const found = /on (http:\S+)/.exec((output += text))?.[1];
    if (found) resolve(found);
  });
  ended.then(() => reject(new Error('hqq serve has ended.')));
});

let looking = Promise.resolve();
function look(word = 'look') {
  looking = looking.then(async () => {
    server.send(word);
    return (await once(server, 'message'))[0];
  });
  return looking;
}

/** Prompts of a beginning that they share, some longer than others. */
const promptOf = (i) => `Once upon a time ${'there was a whale, and '.repeat(i % 4)}number ${i % 20} said`;
const texts = new Map();
const counts = { served: 0, left: 0, lost: 0, wrong: 0 };
let next = 0;

function check(prompt, text, finish) {
  if (finish !== 'length' && finish !== 'stop') return counts.lost++;
  if (!texts.has(prompt)) texts.set(prompt, text);
  return texts.get(prompt) === text ? counts.served++ : counts.wrong++;
}

/** Text of a stream's events, and why it ends. */
function readEvents(body) {
  const events = body.split('\n\n').flatMap((event) => (/^data: \{/.test(event) ? [JSON.parse(event.slice(6))] : []));
  const choices = events.map((event) => event.choices[0]);
  return [choices.map(({ text }) => text).join(''), choices.at(-1)?.finish_reason];
}

async function ask(i) {
  const [kind, prompt] = [i % 4, promptOf(Math.floor(i / 4))];
  const stream = kind === 1 || kind === 2;
  const body = { prompt, max_tokens: tokens, temperature: 0, stream };
  const controller = new AbortController();
  if (kind === 3) sleep((i * 7) % 20).then(() => controller.abort());
  try {
    const response = await fetch(`${url}/v1/completions`, {
      ...{ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) },
      signal: controller.signal,
    });
    if (response.status !== 200) throw new Error(`status ${response.status}`);
    if (kind >= 2) {
      await response.body.getReader().read();
      controller.abort();
      counts.left++;
    } else if (stream) {
      check(prompt, ...readEvents(await response.text()));
    } else {
      const [{ text, finish_reason: finish }] = (await response.json()).choices;
      check(prompt, text, finish);
    }
  } catch (error) {
    if (controller.signal.aborted) counts.left++;
    else {
      counts.lost++;
      console.error(String(error));
    }
  }
}

const began = performance.now();
const memory = [];
const every = Math.ceil(requests / 100);
async function client() {
  while (next < requests) {
    const i = next++;
    await ask(i);
    // By then all that there is has run.
    if (i === 3 * every) await look('begin');
    if (i % every === every - 1) memory.push((await look()).rss);
  }
}
await Promise.all(Array.from({ length: clients }, client));
const { eventLoop } = await look();
const seconds = (performance.now() - began) / 1e3;

let health;
for (let i = 0; i < 100; i++) {
  health = await (await fetch(`${url}/health`)).json();
  if (health.active === 0 && health.waiting === 0) break;
  await sleep(100);
}
server.kill('SIGTERM');
const [code] = await ended;

const fifth = Math.ceil(memory.length / 5);
const [early, late] = [median(memory.slice(fifth, 2 * fifth)), median(memory.slice(-fifth))];
const tenths = Array.from({ length: 10 }, (_, i) =>
  median(memory.slice((i * memory.length) / 10, ((i + 1) * memory.length) / 10)),
);
const result = { requests, clients, tokens, ...counts, seconds, perSecond: requests / seconds, eventLoopMs: eventLoop };
console.log(
  JSON.stringify({ ...result, rss: { early, late, growth: late / early - 1, tenths }, health, code }, null, 2),
);
process.exitCode = counts.lost + counts.wrong > 0 || health.active + health.waiting > 0 || code !== 0 ? 1 : 0;
