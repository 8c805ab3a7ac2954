// What computing takes from where it runs, as it is in Node.js. `hqq/js` is built with host-js.ts in place of this file
// (tsdown.config.ts), and so needs nothing of Node.

import { workerThreads } from '../backend/worker-threads.js';

export { defaultThreads } from '../backend/environment.js';
export { activeBackend, backend, chosenBackend } from '../backend/index.js';

export function markAsUntransferable(buffer: ArrayBuffer): void {
  workerThreads().markAsUntransferable(buffer);
}
