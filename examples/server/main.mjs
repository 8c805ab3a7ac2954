// node examples/server/main.mjs <model folder> [port]        a completion server; Ctrl-C lets requests under way end
import { basename } from 'node:path';
import { loadLanguageModel } from 'hqq/runtime';
import { createServer } from './server.mjs';

const [path, port = '8080'] = process.argv.slice(2);
if (path === undefined) {
  console.error('usage: node examples/server/main.mjs <model folder> [port]');
  process.exit(2);
}
const limits = JSON.parse(process.env.LIMITS ?? '{}');
const model = await loadLanguageModel(path, { activations: process.env.ACTIVATIONS });
const server = createServer(model, basename(path), limits);
const address = await server.listen({ port: Number(port), host: process.env.HOST ?? '127.0.0.1' });
console.log(`serving ${basename(path)} on ${address}`);

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await server.close();
    await model.close();
  });
}
