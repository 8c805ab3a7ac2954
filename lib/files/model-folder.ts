import * as fs from 'node:fs/promises';
import { basename, dirname, join, sep } from 'node:path';
import { HqqError } from '../messages/errors.js';
import { compareBytes, plain } from '../messages/text.js';
import { ioError, systemCode, withPath } from './io.js';

/** Deepest folder below a model that is listed. Real ones have one or two levels. */
const MAX_FOLDER_DEPTH = 8;

/** Most entries of a model folder: a home directory given by mistake must not be walked, let alone copied. */
const MAX_FOLDER_ENTRIES = 20_000;

/** Weights in other formats, and their indexes. Carrying the float weights along would defeat the purpose. */
const OTHER_WEIGHTS = [
  /\.(safetensors|gguf|ggml|onnx|onnx_data|pt|pth|ckpt|h5|msgpack|tflite|mlmodel|ot|nemo|tar|zip)$/i,
  /^(pytorch_model|adapter_model|model|diffusion_pytorch_model|consolidated|openvino_).*\.(bin|xml)$/i,
  /\.(safetensors|bin|h5|msgpack|onnx)\.index\.json$/i,
];

/** What runs are writing, or left half-written: also what belongs to a file (`FileKind.beside`). */
const PARTIAL = /\.partial(_data)?$/;

/** What versioning and download tools keep beside a model. */
const TOOL_FOLDERS: ReadonlySet<string> = new Set(['.git', '.cache']);

/** Paths relative to the folder, with `/`, sorted. */
export interface Listing {
  /** Regular files that belong to the model, and links to such within it or within its Hugging Face cache. */
  readonly files: readonly string[];
  /** Left out: weights in other formats, links that lead nowhere or elsewhere, what is not a file, folders too deep. */
  readonly skipped: readonly string[];
  /** Those of `skipped` that are links out of the folder and its cache. They are not read, whatever they are called. */
  readonly strays: ReadonlySet<string>;
}

/** Weights that this package does not carry along, by file name. */
export function isOtherWeights(name: string): boolean {
  return OTHER_WEIGHTS.some((pattern) => pattern.test(name));
}

/** Lists a model folder and its sub-folders. Leftovers (`*.partial`), `.git` and `.cache` are passed over in silence. */
export async function listFolder(root: string): Promise<Listing> {
  const files: string[] = [];
  const skipped: string[] = [];
  const strays = new Set<string>();
  let count = 0;
  const homes = await linkHomes(root);
  const walk = async (relative: string, depth: number): Promise<void> => {
    try {
      await list(relative, depth);
    } catch (error) {
      // A folder within that is gone by now holds nothing any more.
      if (relative !== '' && systemCode(error) === 'ENOENT') return;
      throw ioError('Cannot list', join(root, relative), error);
    }
  };
  const list = async (relative: string, depth: number): Promise<void> => {
    // Read step by step: a folder of millions of entries stops at the limit.
    for await (const entry of await fs.opendir(join(root, relative))) {
      if (++count > MAX_FOLDER_ENTRIES) {
        const message = `Expected ${plain(root)} to be a model folder of at most ${MAX_FOLDER_ENTRIES} files, got more`;
        throw new HqqError('ERR_IO', `${message}. Pass the folder that holds the model alone.`);
      }
      const path = relative === '' ? entry.name : `${relative}/${entry.name}`;
      if (PARTIAL.test(entry.name)) continue;
      if (entry.isDirectory()) {
        if (TOOL_FOLDERS.has(entry.name)) continue;
        if (depth >= MAX_FOLDER_DEPTH) skipped.push(`${path}/`);
        else await walk(path, depth + 1);
        continue;
      }
      const end = entry.isSymbolicLink() ? await endOf(join(root, path), homes) : undefined;
      if (end === 'elsewhere') strays.add(path);
      const regular = entry.isFile() || end === 'file';
      (regular && !isOtherWeights(entry.name) ? files : skipped).push(path);
    }
  };
  await walk('', 0);
  return { files: files.sort(compareBytes), skipped: skipped.sort(compareBytes), strays };
}

/**
 * Where links may lead: a folder from elsewhere must not have a key or a password file copied under a harmless name. The
 * cache of Hugging Face keeps contents in `<entry>/blobs` and links to them in `<entry>/snapshots/<revision>`.
 */
async function linkHomes(root: string): Promise<readonly string[]> {
  const real = await withPath('Cannot list', root, () => fs.realpath(root));
  const homes = [real];
  for (let at = real; dirname(at) !== at; at = dirname(at)) {
    const parent = dirname(at);
    if (basename(parent) === 'snapshots') homes.push(join(dirname(parent), 'blobs'));
  }
  return homes;
}

/** What a link leads to: a regular file below one of `homes`, something elsewhere, or nothing of use. */
async function endOf(path: string, homes: readonly string[]): Promise<'file' | 'elsewhere' | 'nothing'> {
  try {
    const real = await fs.realpath(path);
    if (!homes.some((home) => real.startsWith(home.endsWith(sep) ? home : home + sep))) return 'elsewhere';
    return (await fs.stat(real)).isFile() ? 'file' : 'nothing';
  } catch {
    return 'nothing';
  }
}

/** Whether a path leads to a regular file that is in a folder, or in its Hugging Face cache. */
export async function staysInside(root: string, path: string): Promise<boolean> {
  return (await endOf(path, await linkHomes(root))) === 'file';
}
