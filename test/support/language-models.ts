import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

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

/** The shipped model with changes in its config.json, as a folder `name` below `parent`. */
export function changedModel(parent: string, name: string, change: object): string {
  const path = join(parent, name);
  cpSync(SHIPPED, path, { recursive: true });
  const file = join(path, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as object;
  writeFileSync(file, JSON.stringify({ ...config, ...change }));
  return path;
}
