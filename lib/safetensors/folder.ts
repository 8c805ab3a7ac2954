import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { HqqError } from '../errors.js';
import { ioError } from './io.js';
import { compareBytes, plain } from './text.js';

/** Deepest folder below a model that is listed. Real ones have one or two levels. */
export const MAX_FOLDER_DEPTH = 8;

/** Most entries of a model folder: a home directory given by mistake must not be walked, let alone copied. */
export const MAX_FOLDER_ENTRIES = 20_000;

/** Weights in other formats, and their indexes. Carrying the float weights along would defeat the purpose. */
const OTHER_WEIGHTS = [
  /\.(safetensors|gguf|ggml|onnx|onnx_data|pt|pth|ckpt|h5|msgpack|tflite|mlmodel|ot|nemo|tar|zip)$/i,
  /^(pytorch_model|adapter_model|model|diffusion_pytorch_model|consolidated|openvino_).*\.(bin|xml)$/i,
  /\.(safetensors|bin|h5|msgpack|onnx)\.index\.json$/i,
];

/** What versioning and download tools keep beside a model. */
const TOOL_FOLDERS: ReadonlySet<string> = new Set(['.git', '.cache']);

/** Paths relative to the folder, with `/`, sorted. */
export interface Listing {
  /** Regular files and symbolic links to such (Hugging Face's cache is made of them) that belong to the model. */
  readonly files: readonly string[];
  /** Left out: weights in other formats, links that lead nowhere or to folders, pipes and devices, folders that are too deep. */
  readonly skipped: readonly string[];
}

/** Weights that this package does not carry along, by file name. */
export function isOtherWeights(name: string): boolean {
  return OTHER_WEIGHTS.some((pattern) => pattern.test(name));
}

/** Lists a model folder and its sub-folders. Leftovers (`*.partial`), `.git` and `.cache` are passed over in silence. */
export async function listFolder(root: string): Promise<Listing> {
  const files: string[] = [];
  const skipped: string[] = [];
  let count = 0;
  const walk = async (relative: string, depth: number): Promise<void> => {
    // Read step by step: a folder of millions of entries stops at the limit.
    for await (const entry of await fs.opendir(join(root, relative))) {
      if (++count > MAX_FOLDER_ENTRIES) {
        const message = `Expected ${plain(root)} to be a model folder of at most ${MAX_FOLDER_ENTRIES} files, got more`;
        throw new HqqError('ERR_IO', `${message}. Pass the folder that holds the model alone.`);
      }
      const path = relative === '' ? entry.name : `${relative}/${entry.name}`;
      if (entry.name.endsWith('.partial')) continue;
      if (entry.isDirectory()) {
        if (TOOL_FOLDERS.has(entry.name)) continue;
        if (depth >= MAX_FOLDER_DEPTH) skipped.push(`${path}/`);
        else await walk(path, depth + 1);
        continue;
      }
      const regular = entry.isFile() || (entry.isSymbolicLink() && (await isFile(join(root, path))));
      (regular && !isOtherWeights(entry.name) ? files : skipped).push(path);
    }
  };
  try {
    await walk('', 0);
  } catch (error) {
    throw ioError('Cannot list', root, error);
  }
  return { files: files.sort(compareBytes), skipped: skipped.sort(compareBytes) };
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await fs.stat(path)).isFile();
  } catch {
    return false;
  }
}
