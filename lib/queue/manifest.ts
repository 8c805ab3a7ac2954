import { createHash, randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { dirname, isAbsolute, join, posix, relative, resolve, sep } from 'node:path';
import { readWhole, withPath } from '../files/io.js';
import { parseJson } from '../files/json.js';
import type { QuantConfig } from '../matrix/config.js';
import { HqqError, show } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import type { ModelOptions } from '../models/options.js';
import type { ModelPlan } from '../models/quantize/plan.js';
import { writeWhole } from './whole-file.js';

// What a run is, as a file beside its output. Workers take nothing on trust: each plans anew from the options, and writes only if that
// comes to the same plan.

/** What is known of a shard before it is written. */
export interface ShardSummary {
  /** Its name in the model. */
  readonly file: string;
  /** How many it holds, and weights of those that are quantized. */
  readonly tensors: number;
  readonly weights: number;
}

/** A run. Plain JSON. */
export interface Manifest {
  /** Of this form. */
  readonly version: 1;
  /** The version of hqq: another may choose other codes. */
  readonly hqq: string;
  /** Its name: 16 hexadecimal digits. */
  readonly run: string;
  /** Where the model is and where the output will be: below the shared folder with '/' between, or absolute. */
  readonly input: string;
  readonly output: string;
  /** The options of `quantizeModel`, those of the call alone taken out. */
  readonly options: QuantConfig & ModelOptions;
  /** `digestOf` the model. */
  readonly digest: string;
  /** SHA-256 of what `fingerprintOf` the plan says. */
  readonly plan: string;
  readonly shards: readonly ShardSummary[];
  /** Milliseconds since 1970. */
  readonly begun: number;
  /** How often a shard is tried. */
  readonly attempts: number;
  /** Folders above the output that were made for it, the deepest first. */
  readonly parents: readonly string[];
  /** Whether there is a job that finds importance. Else what is known of it lies there from the beginning. */
  readonly weighs: boolean;
}

const KEYS: readonly (keyof Manifest)[] = [
  ...(['version', 'hqq', 'run', 'input', 'output', 'options', 'digest', 'plan', 'shards'] as const),
  ...(['begun', 'attempts', 'parents', 'weighs'] as const),
];

/** Largest manifest, four bytes a character: its shards' names are few, but the options may name many layers, or hold a text. */
const MAX_BYTES = 64 * 1024 * 1024;

export const isRun = (text: unknown): text is string => typeof text === 'string' && /^[0-9a-f]{16}$/.test(text);
export const freshRun = (): string => randomBytes(8).toString('hex');

/** What two who plan must agree on: which layers of which file become what. Where the model lies is not in it, nor are notes. */
export function fingerprintOf({ version, digest, container, scheme, config, shards, change }: ModelPlan): string {
  const hash = createHash('sha256').update(JSON.stringify([version, digest, container, scheme, config, change]));
  for (const shard of shards) hash.update(JSON.stringify(shard));
  return hash.digest('hex');
}

export function summariesOf({ shards }: ModelPlan): readonly ShardSummary[] {
  return shards.map(({ file, layers, copies }) => ({
    ...{ file, tensors: layers.length + copies.length },
    weights: layers.reduce((sum, { site: { shape } }) => sum + shape[0] * shape[1], 0),
  }));
}

// Where things are.

/** The folder that holds what is written meanwhile, beside the output. Only one run can have it. */
export const stagingOf = (output: string): string => `${output}.queue`;
/** In it that of the run, whose name no other has: what is written to it late is never taken for another's. */
export const folderOf = (output: string, run: string): string => join(stagingOf(output), run);

/** The files of a run in its folder. */
export const FILES = {
  manifest: 'manifest.json',
  /** There as soon as the run is to end without an output: nobody begins anything any more. */
  ended: 'ended.json',
  /** The output is in its place. */
  report: 'report.json',
  /** What is known of importance; and its numbers, where there are any. */
  weighed: 'importance.json',
  importance: 'importance.safetensors',
  shards: 'shards',
} as const;

/** A shard, and what came of it, which is there when the shard is whole. */
export const shardFile = (folder: string, index: number): string => join(folder, FILES.shards, `${index}.part`);
export const resultFile = (folder: string, index: number): string => join(folder, FILES.shards, `${index}.json`);

/** A path as a job has it: below `root` where there is one. @throws {HqqError} `ERR_INVALID_OPTION` for one outside */
export async function told(path: string, root: string | undefined): Promise<string> {
  const place = await realPlace(path);
  if (root === undefined) return place;
  const folder = await withPath('Cannot read', root, () => fs.realpath(root));
  if (isWithin(place, folder)) return relative(folder, place).split(sep).join('/');
  const message = `Expected ${plain(path)} to lie in the shared folder, ${plain(root)}, where workers find it`;
  throw new HqqError('ERR_INVALID_OPTION', `${message}. Put it there, or name another folder (root, --queue-root).`);
}

/**
 * The place of a path that a job told, inside of `root` whatever links lead to.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION` for one outside
 */
export async function found(path: unknown, root: string): Promise<string> {
  const refuse = (): never => {
    const message = `Expected a job to name a place in ${plain(root)}, the folder of this worker (root, --root), got ${show(path)}`;
    throw new HqqError('ERR_INVALID_OPTION', `${message}. It is not touched.`);
  };
  if (typeof path !== 'string' || path === '' || path.includes('\0') || path.length > 4096) return refuse();
  if (!isAbsolute(path) && posix.normalize(path) !== path) return refuse();
  const folder = await withPath('Cannot read', root, () => fs.realpath(root));
  const place = await realPlace(resolve(folder, path));
  return isWithin(place, folder) ? place : refuse();
}

/** Whether `inner` lies in `outer`, and is not it. Both are real paths. */
export function isWithin(inner: string, outer: string): boolean {
  const path = relative(outer, inner);
  return path !== '' && path !== '..' && !path.startsWith(`..${sep}`) && !isAbsolute(path);
}

/** The real path of what is there, or will be: links of all folders above it are followed. */
async function realPlace(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    return await fs.realpath(absolute);
  } catch {
    const above = dirname(absolute);
    return above === absolute
      ? absolute
      : join(await realPlace(above), absolute.slice(above.length).replace(/^[\\/]/, ''));
  }
}

/** @returns what is sent with the jobs: SHA-256 of the file */
export async function writeManifest(folder: string, manifest: Manifest): Promise<string> {
  const text = `${JSON.stringify(manifest, null, 1)}\n`;
  if (text.length > MAX_BYTES / 4) {
    const message = `Expected options that take at most ${MAX_BYTES / 4} characters, got ${text.length}`;
    throw new HqqError('ERR_INVALID_OPTION', `${message}. Give a shorter text (importance).`);
  }
  await writeWhole(join(folder, FILES.manifest), text);
  return createHash('sha256').update(text).digest('hex');
}

/**
 * Reads a manifest.
 *
 * @param sha256 what it must have, where somebody told
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for another file than that; `ERR_CHECKPOINT_FORMAT` for one that is none
 */
export async function readManifest(
  path: string,
  sha256?: string,
): Promise<{ readonly manifest: Manifest; readonly sha256: string }> {
  const bytes = await readWhole(path, MAX_BYTES);
  const own = createHash('sha256').update(bytes).digest('hex');
  if (sha256 !== undefined && own !== sha256) {
    const message = `Expected ${plain(path)} to be the manifest that the job was made with, but it is another`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}: its SHA-256 is ${own}.`);
  }
  return { manifest: checked(parseJson(bytes, { file: path }), path), sha256: own };
}

function checked(value: unknown, path: string): Manifest {
  const refuse = (what: string, expected: string, got: unknown): never => {
    throw new HqqError(
      'ERR_CHECKPOINT_FORMAT',
      `${plain(path)}: expected ${what} to be ${expected}, got ${show(got)}.`,
    );
  };
  if (typeof value !== 'object' || value === null) return refuse('the manifest', 'an object', value);
  const given = value as Record<keyof Manifest, unknown>;
  const strange = Object.keys(given).find((key) => !(KEYS as readonly string[]).includes(key));
  if (strange !== undefined) refuse('its keys', KEYS.join(', '), strange);
  if (given.version !== 1) refuse('version', '1, the form that this version of hqq reads', given.version);
  if (!isRun(given.run)) refuse('run', '16 hexadecimal digits', given.run);
  for (const key of ['digest', 'plan'] as const)
    if (!/^[0-9a-f]{64}$/.test(String(given[key]))) refuse(key, '64 hexadecimal digits', given[key]);
  if (typeof given.options !== 'object' || given.options === null) refuse('options', 'an object', given.options);
  for (const key of ['hqq', 'input', 'output'] as const)
    if (typeof given[key] !== 'string') refuse(key, 'a text', given[key]);
  if (!Array.isArray(given.parents) || given.parents.some((parent) => typeof parent !== 'string'))
    refuse('parents', 'a list of texts', given.parents);
  for (const key of ['begun', 'attempts'] as const)
    if (!Number.isSafeInteger(given[key]) || (given[key] as number) < 1) refuse(key, 'a positive integer', given[key]);
  if (typeof given.weighs !== 'boolean') refuse('weighs', 'true or false', given.weighs);
  const isShard = (shard: Partial<ShardSummary> | null) =>
    typeof shard?.file === 'string' && Number.isSafeInteger(shard.tensors) && Number.isSafeInteger(shard.weights);
  if (!Array.isArray(given.shards) || !given.shards.every(isShard)) refuse('shards', 'a list of shards', given.shards);
  return value as Manifest;
}
