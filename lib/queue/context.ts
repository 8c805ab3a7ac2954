import * as fs from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { withPath } from '../files/io.js';
import { HqqError, show } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import type { ModelOptions } from '../models/options.js';
import { type Prepared, prepare } from '../models/quantize/prepare.js';
import { packageVersion } from '../models/quantize/version.js';
import type { JobData } from './jobs.js';
import { FILES, fingerprintOf, folderOf, found, isWithin, type Manifest, readManifest } from './manifest.js';
import { readWeighed, type Weighed } from './weighed.js';

// What a worker knows of a run: what its manifest says, of which nothing is believed that cannot be seen.

/** A run, as a worker finds it on its disk. */
export interface Context {
  readonly manifest: Manifest;
  /** SHA-256 of the manifest. */
  readonly sha256: string;
  readonly input: string;
  readonly output: string;
  /** Where its files are. */
  readonly folder: string;
  readonly prepared: Prepared;
  /** As far as it is found; read once. */
  weighed?: Promise<Weighed>;
}

/** What is wrong where this worker is, and may be right where another one is. */
export class Elsewhere extends HqqError {}

/** Runs that stay open between two jobs: planning takes longer than many a shard. */
const KEPT = 4;

/** The runs that a worker works at. */
export class Contexts {
  readonly #root: string;
  /** The newest last. */
  readonly #open = new Map<string, { readonly context: Promise<Context>; users: number; stale: boolean }>();

  /** @param root the only folder that jobs may name */
  constructor(root: string) {
    this.#root = root;
  }

  /** The folder of a job's run, which is in the root. Nothing in it is read. @throws {HqqError} `ERR_INVALID_OPTION` for another */
  async folderOf({ manifest, run }: JobData): Promise<string> {
    const path = await found(manifest, this.#root);
    const folder = dirname(path);
    const isOne = path === join(folder, FILES.manifest) && folder.endsWith(join('.queue', run));
    if (isOne) return folder;
    throw new HqqError(
      'ERR_INVALID_OPTION',
      `Expected a job to name the manifest of run ${run}, got ${show(manifest)}.`,
    );
  }

  /** Calls `work` with the run that a job is of. */
  async use<T>(data: JobData, work: (context: Context) => Promise<T>): Promise<T> {
    const key = JSON.stringify([data.manifest, data.sha256]);
    let entry = this.#open.get(key);
    if (entry === undefined) {
      entry = { context: this.#begin(data), users: 0, stale: false };
      this.#open.set(key, entry);
    }
    entry.users++;
    try {
      await this.#closeOld();
      return await work(await entry.context);
    } catch (error) {
      // What is wrong with the model may be put right before the next try: it is opened anew then.
      if (this.#open.get(key) === entry) this.#open.delete(key);
      entry.stale = true;
      throw error;
    } finally {
      entry.users--;
      if (entry.stale && entry.users === 0) await close(entry.context);
    }
  }

  /** Closes all; none may be in use. */
  async close(): Promise<void> {
    for (const { context } of this.#open.values()) await close(context);
    this.#open.clear();
  }

  async #closeOld(): Promise<void> {
    for (const [key, entry] of this.#open) {
      if (this.#open.size <= KEPT) return;
      if (entry.users > 0) continue;
      this.#open.delete(key);
      await close(entry.context);
    }
  }

  async #begin(data: JobData): Promise<Context> {
    const folder = await this.folderOf(data);
    const { manifest, sha256 } = await readManifest(join(folder, FILES.manifest), data.sha256);
    const [input, output] = [await found(manifest.input, this.#root), await found(manifest.output, this.#root)];
    const other = (what: string, expected: string, got: unknown): HqqError =>
      new Elsewhere('ERR_CHECKPOINT_CONTENT', `Expected ${what} to be ${expected}, got ${show(got)}.`);
    if (manifest.run !== data.run) throw other('the run of the manifest', data.run, manifest.run);
    if (folderOf(output, manifest.run) !== folder) throw other('the folder of the run', 'beside its output', folder);
    const own = packageVersion();
    if (manifest.hqq !== own) throw other('hqq to be as where the run was begun', manifest.hqq, own);
    await checkLinks(input, this.#root);
    const prepared = await prepare(input, output, optionsOf(manifest));
    try {
      for (const { path } of prepared.source.files) await checkInside(path, this.#root);
      const { plan } = prepared;
      const seen = `${plain(input)} as this worker sees it`;
      if (plan.digest !== manifest.digest) throw other(`the digest of ${seen}`, manifest.digest, plan.digest);
      const own = fingerprintOf(plan);
      if (own !== manifest.plan) throw other(`the plan of ${seen}`, `the run's, ${manifest.plan}`, own);
      return { manifest, sha256, input, output, folder, prepared };
    } catch (error) {
      await prepared.source.close();
      throw error;
    }
  }
}

async function close(context: Promise<Context>): Promise<void> {
  await context.then(({ prepared }) => prepared.source.close()).catch(() => {}); // who used it was told
}

/** What is known of the importance of its layers' inputs. */
export function weighedOf(context: Context): Promise<Weighed> {
  context.weighed ??= readWeighed(context.folder);
  context.weighed.catch(() => {
    delete context.weighed;
  });
  return context.weighed;
}

/** Names of options that the call alone has, or that name files, which a job must not. */
const REFUSED = ['signal', 'onProgress', 'queue', 'dryRun', 'threads', 'refine', 'adapter', 'tune'] as const;

/** The options of the run. @throws {HqqError} `ERR_INVALID_OPTION` for such as would have files read */
function optionsOf({ options }: Manifest): ModelOptions {
  const given = options as Record<string, unknown>;
  const refuse = (name: string): never => {
    const message = `Expected a manifest without ${name} that ${name === 'plan' || name === 'importance' ? 'names a file' : 'a call has'}`;
    throw new HqqError('ERR_INVALID_OPTION', `${message}, got ${show(given[name])}.`);
  };
  for (const name of REFUSED) if (given[name] !== undefined) refuse(name);
  const { plan, importance } = given;
  if (plan !== undefined && (typeof plan !== 'object' || plan === null || 'href' in plan)) refuse('plan');
  const isText = typeof importance === 'object' && importance !== null && 'text' in importance;
  if (!isText && ![undefined, 'none', 'auto', 'random', 'own'].includes(importance as string)) refuse('importance');
  return options;
}

/** Most entries of a model's folder that are looked at. */
const MAX_ENTRIES = 20_000;

/** Refuses a folder in which a link leads out of the root: what it leads to would be carried along. */
async function checkLinks(input: string, root: string): Promise<void> {
  if (!(await withPath('Cannot read', input, () => fs.stat(input))).isDirectory()) return;
  let left = MAX_ENTRIES;
  const look = async (folder: string): Promise<void> => {
    for (const entry of await withPath('Cannot list', folder, () => fs.readdir(folder, { withFileTypes: true }))) {
      if (--left < 0)
        throw new HqqError(
          'ERR_CHECKPOINT_CONTENT',
          `${plain(input)} holds more than ${MAX_ENTRIES} files and folders.`,
        );
      const path = join(folder, entry.name);
      if (entry.isSymbolicLink()) await checkInside(path, root);
      else if (entry.isDirectory()) await look(path);
    }
  };
  await look(input);
}

async function checkInside(path: string, root: string): Promise<void> {
  const real = await withPath('Cannot read', path, () => fs.realpath(path));
  if (isWithin(real, root)) return;
  const message = `Expected ${plain(path)} to lie in ${plain(root)}, the folder of this worker (root, --root)`;
  throw new HqqError('ERR_INVALID_OPTION', `${message}, but it is a link to somewhere else. It is not read.`);
}
