// Both module formats and a worker in one process: and still one warning at most.
import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import * as esm from 'hqq';

const warnings = [];
process.on('warning', ({ code }) => warnings.push(code));
const names = [esm.backend().name, createRequire(import.meta.url)('hqq').backend().name];
const worker = new Worker(
  `process.on('warning', ({ code }) => parentPort.postMessage(code));
   const { parentPort } = require('node:worker_threads');
   import('hqq').then(({ backend }) => setImmediate(() => parentPort.postMessage(backend().name)));`,
  { eval: true },
);
worker.on('message', (text) => (text.startsWith('HQQ_') ? warnings : names).push(text));
worker.on('exit', () => console.log(JSON.stringify({ names, warnings })));
