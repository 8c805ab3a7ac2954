import { chosenBackend } from '../compute/host.js';

/**
 * Between two phases of work whose arrays are large: what the first one left is collected, where the process lets that be asked for (the
 * command, `node --expose-gc`), and what is free goes back to the system. Else it would lie beside what the next phase takes.
 */
export function giveBack(): void {
  globalThis.gc?.();
  globalThis.gc?.(); // what the first one found is freed beside it, by other threads: the second one waits for these
  chosenBackend()?.run('trim', { threads: 1 });
}
