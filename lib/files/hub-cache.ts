import * as fs from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { HqqError } from '../messages/errors.js';
import { plain, quoteSome } from '../messages/text.js';
import { ioError, readWhole, systemCode } from './io.js';

// The cache of Hugging Face: models--<org>--<name>/ holds refs/main, the name of a revision; snapshots/<revision>/, the model's
// folder; and blobs/, which its files link to. What programs download by an id (org/name) lies there.

/** `org/name`, as huggingface_hub allows it: of such a name there is one folder in the cache. */
const HUB_ID = /^(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}\/[A-Za-z0-9_][\w.-]{0,95}$/;

/** What a file of refs/ holds: the hash of a commit. Never a path. */
const REVISION = /^\w[\w-]{0,127}$/;
const MAX_REF_BYTES = 1024;

/**
 * Where a model is: `given` where that exists, save that the root of its entry in Hugging Face's cache leads to the snapshot that
 * `refs/main` names; else, for an id such as `org/name`, its snapshot in this machine's cache. Nothing is downloaded.
 *
 * @throws {HqqError} `ERR_IO` for an id that is not in the cache, and for an entry without a snapshot to use. What is no id and
 * does not exist is given back, for the reader to complain about.
 */
export async function findModel(given: string): Promise<string> {
  if (await exists(given)) return (await isEntry(given)) ? snapshotOf(given) : given;
  if (!HUB_ID.test(given)) return given;
  const cache = hubCache(process.env);
  const entry = join(cache, `models--${given.replace('/', '--')}`);
  if (await exists(entry)) return snapshotOf(entry);
  const message = `Cannot read ${given}. There is no such path, and no such model in the Hugging Face cache (${plain(cache)})`;
  throw new HqqError(
    'ERR_IO',
    `${message}. Models are not downloaded here: check the path, or run hf download ${given}.`,
  );
}

/** Where huggingface_hub keeps models, by its own variables. */
export function hubCache(env: Readonly<Record<string, string | undefined>>): string {
  const home = env.HF_HOME || join(env.XDG_CACHE_HOME || '~/.cache', 'huggingface');
  const cache = env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, 'hub');
  return cache === '~' || cache.startsWith('~/') ? join(homedir(), cache.slice(1)) : cache;
}

async function exists(path: string): Promise<boolean> {
  try {
    await fs.stat(path);
    return true;
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return false;
    throw ioError('Cannot read', path, error);
  }
}

/** Whether a folder is an entry of the cache, whatever link led to it. */
async function isEntry(path: string): Promise<boolean> {
  const real = await fs.realpath(path);
  return basename(real).startsWith('models--') && (await exists(join(real, 'snapshots')));
}

/** The folder that refs/main of an entry names. */
async function snapshotOf(entry: string): Promise<string> {
  const snapshots = join(entry, 'snapshots');
  const refuse = async (fault: string): Promise<never> => {
    const there = await fs.readdir(snapshots).catch(() => []);
    const advice = there.length > 0 ? `, or pass a folder of ${plain(snapshots)}: ${quoteSome(there)}` : '';
    const message = `Cannot read ${plain(entry)}. Its refs/main ${fault}`;
    throw new HqqError('ERR_IO', `${message}. Download the model again (hf download)${advice}.`);
  };
  let text: string;
  try {
    text = (await readWhole(join(entry, 'refs', 'main'), MAX_REF_BYTES)).toString('latin1').trim();
  } catch (error) {
    if (error instanceof HqqError && systemCode(error.cause) === 'ENOENT') return refuse('is missing');
    throw error;
  }
  if (!REVISION.test(text)) return refuse('names no revision');
  const path = join(snapshots, text);
  if (!(await exists(path))) return refuse(`names ${text}, which is not among its snapshots`);
  // A folder of the entry itself: what a link leads to elsewhere was not asked for.
  const [real, home] = await Promise.all([fs.realpath(path), fs.realpath(entry)]);
  return dirname(real) === join(home, 'snapshots') ? path : refuse(`names ${text}, which leads elsewhere`);
}
