import type { QueueOptions } from '../queue/options.js';
import { count, type Flag, type Flags, kebab, text, UsageError, type Values } from './flags.js';

const toggle = (help: string): Flag<boolean> => ({ help });

/** Where Redis is. Not held against anything here: what is refused is shown, and it may hold a password. */
export const QUEUE_URL: Flag<string> = {
  value: 'url',
  help: 'Redis, redis://host:6379 (rediss:// with TLS); a password: HQQ_REDIS_PASSWORD in the environment',
  expected: 'a URL of Redis, such as redis://localhost:6379',
};
export const QUEUE_NAME = text('name', 'of several queues there, which', { default: 'hqq' });

/** Flags of what has a model written by workers. */
export const QUEUE_FLAGS = {
  queue: { ...QUEUE_URL, help: `have shards written by workers (hqq worker). ${QUEUE_URL.help}` },
  queueName: QUEUE_NAME,
  queueRoot: text('folder', 'the shared folder, --root of the workers, where it has another path on other machines'),
  attempts: count('n', 'how often a shard is tried', [1, 100], 3),
  attach: toggle('follow the run that writes --out already; other options are those of its begin'),
  cancel: toggle('Ctrl-C ends the run and clears what was written; without it, it only leaves'),
} satisfies Flags;

/** What they say; undefined without a queue. */
export function queueOf(
  values: Values<typeof QUEUE_FLAGS>,
): { readonly options: QueueOptions; readonly cancel: boolean } | undefined {
  const { queue: url, queueName: name, queueRoot: root, attempts, attach, cancel = false } = values;
  if (url !== undefined) return { options: { url, name, root, attempts, attach }, cancel };
  const lonely = (['queueName', 'queueRoot', 'attempts', 'attach', 'cancel'] as const).find(
    (key) => values[key] !== undefined,
  );
  if (lonely === undefined) return undefined;
  throw new UsageError(`Expected --queue <url> with --${kebab(lonely)}.`);
}
