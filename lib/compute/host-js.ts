// The place of host.ts in `hqq/js`: JavaScript computes, on the thread that calls, wherever that is. test/js.test.ts holds the
// two files to the same types; importing one here would bring Node's declarations along.
import type { Backend } from '../../binding.js';
import type { BackendInfo } from '../backend/info.js';
import { createJsBackend } from '../backend/js/backend.js';
import { refuseSurplus } from '../messages/surplus.js';

let active: Backend | undefined;

export function activeBackend(): Backend {
  return (active ??= createJsBackend());
}

export function chosenBackend(): Backend | undefined {
  return active;
}

/** What computes here: JavaScript. */
export function backend(): BackendInfo {
  refuseSurplus(arguments.length, 0, 'backend()');
  return Object.freeze({ name: 'js', isa: 'js', threads: 1 });
}

export function defaultThreads(): number {
  return 1;
}

/** Memory that is transferred away is empty for JavaScript, not freed under it: nothing has to be kept in place. */
export function markAsUntransferable(): void {}
