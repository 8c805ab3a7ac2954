import { chosenBackend } from '../compute/host.js';
import { runTask } from '../compute/run.js';

let collect = () => {};

/** Lets `giveBack` collect garbage, which stops the event loop: for a process of which nobody waits for it. */
export function collectBy(gc: () => void): void {
  collect = gc;
}

/**
 * Between two phases of work whose arrays are large: what the first one left is collected, where that was allowed, and what is free
 * goes back to the system. Else it would lie beside what the next phase takes.
 */
export async function giveBack(): Promise<void> {
  collect();
  collect(); // what the first one found is freed beside it, by other threads: the second one waits for these
  const backend = chosenBackend();
  if (backend) await runTask(backend, 'trim', { threads: 1 });
}
