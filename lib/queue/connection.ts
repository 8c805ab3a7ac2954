import { isIP } from 'node:net';
import type * as BullMq from 'bullmq';
import type { Queue } from 'bullmq';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { requireBullMq } from './bullmq.js';

// Redis, through BullMQ. No message of here holds a user or a password.

/** Milliseconds in which Redis has to answer for the first time. */
const FIRST_ANSWER = 10_000;
/** Longest time between two tries to reach it again. */
const RETRY = 2_000;

/** @throws {HqqError} `ERR_DEPENDENCY` */
export function loadBullMq(): typeof BullMq {
  try {
    return requireBullMq(process.cwd());
  } catch (cause) {
    const message =
      'A queue needs the packages bullmq and ioredis, which are found neither beside hqq nor from the working directory';
    throw new HqqError('ERR_DEPENDENCY', `${message}. Install them: npm install bullmq ioredis`, { cause });
  }
}

/** How Redis is reached: the URL, with the user and the password of the environment where it has none. It is one that `checkUrl` let pass. */
export function connectionOf(url: string): BullMq.RedisOptions {
  const { hostname, port, pathname, protocol, username, password } = new URL(url);
  const { HQQ_REDIS_USERNAME, HQQ_REDIS_PASSWORD } = process.env;
  const user = decodeURIComponent(username) || HQQ_REDIS_USERNAME;
  const secret = decodeURIComponent(password) || HQQ_REDIS_PASSWORD;
  const host = hostname.replace(/^\[(.*)\]$/, '$1') || '127.0.0.1';
  return {
    ...{ host, port: port === '' ? 6379 : Number(port), db: Number(pathname.slice(1)) || 0 },
    ...(user ? { username: user } : {}),
    ...(secret ? { password: secret } : {}),
    ...(protocol === 'rediss:' ? { tls: isIP(host) ? {} : { servername: host } } : {}),
    maxRetriesPerRequest: null, // what was asked while it was away is asked when it is back
    retryStrategy: (times: number) => Math.min(50 * times, RETRY),
  };
}

/** The address alone. */
export function addressOf(url: string): string {
  const { host, protocol } = new URL(url);
  return `${protocol}//${host || 'localhost'}`;
}

/**
 * A queue whose Redis has answered.
 *
 * @throws {HqqError} `ERR_DEPENDENCY`; `ERR_IO` where nothing answers, or refuses
 */
export async function openQueue(url: string, name: string): Promise<Queue> {
  const { Queue: Opened } = loadBullMq();
  const queue = new Opened(name, { connection: connectionOf(url), prefix: PREFIX });
  let last: unknown;
  queue.on('error', (error) => {
    last = error;
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(last ?? new Error(`no answer in ${FIRST_ANSWER / 1000} s`)), FIRST_ANSWER);
    queue.on('error', (error: Error & { readonly code?: string }) => {
      // What a second try does not change.
      if (/^(WRONGPASS|NOAUTH|ERR|NOPERM)\b/.test(error.message) || error.code === 'ENOTFOUND') reject(error);
    });
  });
  try {
    await Promise.race([queue.waitUntilReady(), late]);
    return queue;
  } catch (error) {
    late.catch(() => {});
    await closeQueue(queue);
    throw unreachable(url, error);
  } finally {
    clearTimeout(timer);
  }
}

/** Before everything that is stored of queues. */
export const PREFIX = 'bull';

/** Milliseconds that the end of a connection may take. */
const LAST_WORDS = 1_000;

/** Ends the connection, whatever state it is in: one that was never there answers nothing. */
export async function closeQueue(queue: { close(): Promise<void>; disconnect(): Promise<void> }): Promise<void> {
  if (await soon(queue.close())) return;
  await soon(queue.disconnect());
}

/** Whether something ends, well or not, in the time that the last words may take. */
export async function soon(work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, LAST_WORDS, false);
  });
  const done = work.then(
    () => true,
    () => true,
  );
  const ended = await Promise.race([done, late]);
  clearTimeout(timer);
  return ended;
}

/** The error for a Redis that is not there. */
function unreachable(url: string, cause: unknown): HqqError {
  const said = plain(cause instanceof Error ? cause.message || ((cause as NodeJS.ErrnoException).code ?? '') : '');
  const why = /WRONGPASS|NOAUTH/.test(said)
    ? 'It wants another user or password: HQQ_REDIS_USERNAME, HQQ_REDIS_PASSWORD'
    : `Check that redis-server runs there (${said})`;
  // Without its cause: what the client throws may hold the password.
  return new HqqError('ERR_IO', `Cannot reach Redis at ${addressOf(url)}. ${why}.`);
}
