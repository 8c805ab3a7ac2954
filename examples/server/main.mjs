// node examples/server/main.mjs <model folder> [port]        a completion server; Ctrl-C lets requests under way end
import { basename, resolve } from 'node:path';
import { loadLanguageModel } from 'hqq/runtime';
import { createServer, LIMITS } from './server.mjs';

const USAGE = `usage: node examples/server/main.mjs <model folder> [port, default 8080]

Environment:
  HOST=0.0.0.0             the address to listen on (default 127.0.0.1: this machine only)
  ACTIVATIONS=int8         faster products of quantized layers, a little less exact (default float32)
  LIMITS='{"active": 2}'   what the server bears; defaults: ${JSON.stringify(LIMITS)}`;

const [path, port = '8080', ...rest] = process.argv.slice(2);
if (path === undefined || path.startsWith('-') || rest.length > 0 || !/^\d{1,5}$/.test(port) || Number(port) > 65535) {
  console.error(USAGE);
  process.exit(2);
}

try {
  const limits = parseLimits(process.env.LIMITS ?? '{}');
  const model = await loadLanguageModel(path, { activations: process.env.ACTIVATIONS });
  const name = basename(resolve(path));
  const server = createServer(model, name, limits);
  const address = await server.listen({ port: Number(port), host: process.env.HOST ?? '127.0.0.1' });
  console.log(`serving ${name} on ${address}`);

  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, async () => {
      console.log('stopping: requests under way may end; the same signal again stops at once');
      await server.close();
      await model.close();
    });
  }
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exit(1);
}

function parseLimits(text) {
  try {
    const limits = JSON.parse(text);
    if (typeof limits === 'object' && limits !== null) return limits;
  } catch {}
  throw new Error(`Expected LIMITS to be a JSON object such as {"active": 2}, got ${text}`);
}
