import { once } from 'node:events';
import { addressOf } from '../../queue/connection.js';
import type { WorkerEvent } from '../../queue/options.js';
import { createWorker } from '../../queue/worker.js';
import { defineCommand } from '../command.js';
import { count, NO_PROGRESS, THREADS, text } from '../flags.js';
import { say } from '../process.js';
import { QUEUE_NAME, QUEUE_URL } from '../queue-flags.js';

const WORDS: Readonly<Record<WorkerEvent['kind'], string>> = {
  begun: 'begins',
  done: 'done:',
  failed: 'failed:',
  offline: 'offline:',
};

export const worker = defineCommand({
  name: 'worker',
  args: [],
  summary: 'write shards of models that hqq quantize --queue plans',
  details: [
    'Any number of workers, on any machines that see the same folders. Ctrl-C lets the shard under way end; the same again stops at once, and the',
    'shard is done again by another. npm install bullmq ioredis',
  ].join('\n'),
  flags: {
    queue: { ...QUEUE_URL, required: true },
    root: text('path', 'the shared folder: nothing outside is read or written', { required: true }),
    name: QUEUE_NAME,
    concurrency: count('n', 'shards at once', [1, 64], 1),
    lostAfter: count('s', 'seconds of silence after which a worker is taken for lost', [1, 3600], 30),
    threads: THREADS,
    quiet: NO_PROGRESS,
  },
  plan(_, { queue: url, root, quiet = false, ...options }) {
    return async ({ signal, print }) => {
      const tell = ({ kind, what, message, run }: WorkerEvent) => {
        const text = [WORDS[kind], kind === 'failed' ? undefined : what, message, run && `(run ${run})`];
        say(text.filter((part) => part !== undefined).join(' '));
      };
      const taker = await createWorker({ url: url!, root: root!, ...options, ...(quiet ? {} : { onEvent: tell }) });
      print(`working for ${addressOf(url!)}\n`);
      try {
        if (!signal.aborted) await once(signal, 'abort');
        if (!quiet) say('stopping: the shard under way may end; the same signal again stops at once');
      } finally {
        await taker.close();
      }
    };
  },
});
