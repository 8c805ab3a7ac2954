// node import-once.mjs MODULE ESM|CommonJS: how long that import takes in this process.
import { createRequire } from 'node:module';

const [, , name, format] = process.argv;
const load = format === 'ESM' ? (module) => import(module) : createRequire(import.meta.url);
const cpu = process.cpuUsage();
const start = performance.now();
await load(name);
const ms = performance.now() - start;
const { user, system } = process.cpuUsage(cpu);
console.log(JSON.stringify({ ms, cpuMs: (user + system) / 1e3 }));
