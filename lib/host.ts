// What computing takes from where it runs, as it is in Node.js. `hqq/js` is built with host-js.ts in place of this file
// (tsdown.config.ts), and so needs nothing of Node.

export { defaultThreads } from './backend/environment.js';
export { activeBackend, backend } from './backend/index.js';
export { markAsUntransferable } from 'node:worker_threads';
