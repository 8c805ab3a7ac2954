import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { encode, readBack } from './checkpoints.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Where real models are: `HQQ_MODELS`, else beside the project. */
export const MODELS = process.env.HQQ_MODELS || join(ROOT, '..', 'shared', 'models');

/** The model that ships with the repository, in bfloat16. */
export const SHIPPED = join(ROOT, 'examples', 'models', 'llama-2.3m-books');

/** The folder of a model; undefined, and a word about it, where it is missing. */
export function modelFolder(name: string): string | undefined {
  const folder = join(MODELS, name);
  if (existsSync(join(folder, 'config.json'))) return folder;
  process.stderr.write(
    `Skipped: what needs the model ${name}, which is not in ${MODELS}. HQQ_MODELS says where it is.\n`,
  );
  return undefined;
}

/** Token ids that lie beside a model. */
export function readTokenIds(folder: string, file: string): number[] {
  const value = JSON.parse(readFileSync(join(folder, file), 'utf8')) as number[] | { ids: number[] };
  return Array.isArray(value) ? value : value.ids;
}

/** The shipped model, or another, with changes in its config.json, as a folder `name` below `parent`. */
export function changedModel(parent: string, name: string, change: object, model = SHIPPED): string {
  const path = join(parent, name);
  cpSync(model, path, { recursive: true });
  const file = join(path, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as object;
  writeFileSync(file, JSON.stringify({ ...config, ...change }));
  return path;
}

/**
 * The first rows and columns of the shipped model's weights, as a folder `name` below `parent`: 64 numbers a token instead of 256. It knows
 * nothing any more, and what is done with it takes a fraction of the time.
 */
export function narrowModel(parent: string, name: string): string {
  const heads = { num_attention_heads: 2, num_key_value_heads: 1 };
  const path = changedModel(parent, name, { hidden_size: 64, intermediate_size: 128, ...heads });
  const tensors = [...readBack(SHIPPED)].map(([key, { dtype, shape, bytes }]) => {
    const kept = shape.map((size, i) => {
      if (size === 2048) return size; // tokens
      if (size === 512) return 128; // inside the feed-forward network
      return /[kv]_proj/.test(key) && i === 0 ? 32 : 64;
    });
    const [rows, cols, stride] = shape.length === 1 ? [1, kept[0]!, 0] : [kept[0]!, kept[1]!, shape[1]!];
    const elements = new Uint16Array(Uint8Array.from(bytes).buffer);
    const narrow = new Uint16Array(rows * cols);
    for (let row = 0; row < rows; row++) narrow.set(elements.subarray(row * stride, row * stride + cols), row * cols);
    return [key, { dtype, shape: kept, bytes: new Uint8Array(narrow.buffer) }] as const;
  });
  writeFileSync(join(path, 'model.safetensors'), encode(Object.fromEntries(tensors)));
  return path;
}
