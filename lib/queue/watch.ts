import { onAbort } from '../compute/signal.js';
import { FILES } from './manifest.js';
import { namesIn } from './whole-file.js';

/** Milliseconds between two looks. */
const LOOKS = 1000;

/** The reason of an abort because the run has ended. */
export class Ended extends Error {
  override readonly name = 'AbortError';

  constructor() {
    super('the run has ended');
  }
}

/** Whether a run goes on: it has a manifest, and nobody has ended it. */
export async function goesOn(folder: string): Promise<boolean> {
  const names = await namesIn(folder);
  return names.has(FILES.manifest) && !names.has(FILES.ended);
}

/**
 * Runs `work` with a signal that is aborted when the run ends, or when `signal` is.
 *
 * @throws {Ended} when the run has ended
 */
export async function whileGoingOn<T>(
  folder: string,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  if (!(await goesOn(folder))) throw new Ended();
  const controller = new AbortController();
  const forget = onAbort(signal, () => controller.abort(signal.reason));
  if (signal.aborted) controller.abort(signal.reason);
  const timer = setInterval(() => {
    // A folder that cannot be looked at just now may be back in a second.
    goesOn(folder).then(
      (on) => on || controller.abort(new Ended()),
      () => {},
    );
  }, LOOKS);
  try {
    return await work(controller.signal);
  } catch (error) {
    // What fails because the folder is gone is no failure of its own.
    if (!controller.signal.aborted && !(await goesOn(folder).catch(() => true))) throw new Ended();
    throw controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    clearInterval(timer);
    forget();
  }
}
