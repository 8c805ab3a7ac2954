import { onAbort } from '../compute/signal.js';
import { plain } from '../messages/text.js';
import { Elsewhere } from './context.js';
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

/** Looks in a row that find no manifest before the work at it stops: a shared folder may be away for a moment. */
const MISSES = 3;

/** Whether a run goes on, nobody has ended it, or nothing of it is to be seen. */
async function stateOf(folder: string): Promise<'on' | 'ended' | 'missing'> {
  const names = await namesIn(folder);
  return names.has(FILES.ended) ? 'ended' : names.has(FILES.manifest) ? 'on' : 'missing';
}

/**
 * Runs `work` with a signal that is aborted when the run ends, or when `signal` is.
 *
 * @throws {Ended} when the run has ended
 * @throws {Elsewhere} when this worker sees nothing of it
 */
export async function whileGoingOn<T>(
  folder: string,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const missing = (): Elsewhere => {
    const message = `Expected ${plain(folder)} to hold the files of the run, but this worker finds none`;
    return new Elsewhere('ERR_IO', `${message}. Look whether the shared folder is there.`);
  };
  const state = await stateOf(folder);
  if (state === 'ended') throw new Ended();
  if (state === 'missing') throw missing();
  let misses = 0;
  const controller = new AbortController();
  const forget = onAbort(signal, () => controller.abort(signal.reason));
  if (signal.aborted) controller.abort(signal.reason);
  const timer = setInterval(() => {
    // A folder that cannot be looked at just now may be back in a second.
    stateOf(folder).then(
      (now) => {
        misses = now === 'missing' ? misses + 1 : 0;
        if (now === 'ended') controller.abort(new Ended());
        if (misses >= MISSES) controller.abort(missing());
      },
      () => {},
    );
  }, LOOKS);
  try {
    return await work(controller.signal);
  } catch (error) {
    // What fails because the run has ended, or its folder is gone, is no failure of its own.
    if (!controller.signal.aborted) {
      const now = await stateOf(folder).catch(() => 'on');
      if (now === 'ended') throw new Ended();
      if (now === 'missing') throw missing();
    }
    throw controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    clearInterval(timer);
    forget();
  }
}
