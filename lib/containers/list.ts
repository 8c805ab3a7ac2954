import * as fs from 'node:fs/promises';
import { PREFIX_BYTES } from '../files/file-kind.js';
import { findModel } from '../files/hub-cache.js';
import { closeFile, openRegular, readFully } from '../files/io.js';
import type { Container, TensorSource } from './container.js';
import { gguf } from './gguf/container.js';
import { onnx } from './onnx/container.js';
import { safetensors } from './safetensors/container.js';

/** Every container, once. Of several that would open a model the first one does; the very first opens what none knows, and says why not. */
export const CONTAINERS: Container[] = [safetensors, gguf, onnx];

/** The container of this name. */
export function containerNamed(name: string): Container {
  const container = CONTAINERS.find((known) => known.name === name);
  if (container === undefined) throw new RangeError(`Expected the name of a container, got ${name}.`);
  return container;
}

/**
 * Opens a model: a file, a folder, or what stands for a folder in the cache of Hugging Face (`org/name`, the root of its entry).
 *
 * @param output What is to be made of it; absent: nothing.
 * @throws {HqqError} `ERR_IO` for what is not there or cannot be read, `ERR_CHECKPOINT_FORMAT` for what breaks the format,
 * `ERR_CHECKPOINT_CONTENT` for a folder without a model or with several.
 */
export async function openSource(given: string, output?: string): Promise<TensorSource> {
  const path = await findModel(given);
  const first = CONTAINERS[0]!;
  const stat = await fs.stat(path).catch(() => undefined);
  if (!stat?.isFile() && !stat?.isDirectory()) return first.open(path); // which says what it is instead
  const own = stat.isFile() ? await containerOfFile(path) : await containerOfFolder(path);
  // What begins as no model does is refused as what its name says that it is.
  const named = stat.isFile() ? containerOfName(path) : undefined;
  return (own ?? named ?? first).open(path, output);
}

/**
 * Opens a model as one that lies in the container of a name, where that can be.
 *
 * @throws {HqqError} as `openSource`; as `Container.adopt` for a model that is not known there
 */
export async function openSourceAs(given: string, name: string, output?: string): Promise<TensorSource> {
  return sourceAs(await openSource(given, output), name);
}

/**
 * An open model as one that lies in the container of a name, where that can be; it is closed where that is an error.
 *
 * @param weightsOnly Whether nothing is written of it, so that it needs no tokenizer.
 */
export async function sourceAs(source: TensorSource, name: string, weightsOnly = false): Promise<TensorSource> {
  const { adopts = [], adopt } = containerNamed(name);
  if (adopt === undefined || !adopts.includes(source.container)) return source;
  try {
    return await adopt(source, weightsOnly);
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** The container whose files end as a name does. */
const containerOfName = (name: string) => CONTAINERS.find(({ ending }) => name.toLowerCase().endsWith(ending));

/** Whether an output of that name lies in another container than a source, which adopts it. */
export function isAdopted(source: TensorSource, output: string): boolean {
  const made = containerOfName(output);
  return made !== undefined && made !== CONTAINERS[0] && made.adopts?.includes(source.container) === true;
}

/** An open model to make an output of: where its name ends as files of a container do, as one that lies in that. It is closed where that is an error. */
export async function sourceFor(source: TensorSource, output: string): Promise<TensorSource> {
  return isAdopted(source, output) ? sourceAs(source, containerOfName(output)!.name) : source;
}

/** The same for one that is no model to be made small: what ends as no file does becomes a folder, as Hugging Face has it. */
export function openSourceBack(given: string, output: string): Promise<TensorSource> {
  return openSourceAs(given, (containerOfName(output) ?? CONTAINERS[0]!).name, output);
}

/** The name of the container that `openSource` would open a model as. @throws {HqqError} as that, for what is not there */
export async function containerNameOf(given: string): Promise<string> {
  const path = await findModel(given);
  const isFile = (await fs.stat(path).catch(() => undefined))?.isFile();
  const own = isFile ? await containerOfFile(path) : await containerOfFolder(path);
  return (own ?? CONTAINERS[0]!).name;
}

async function containerOfFolder(path: string): Promise<Container | undefined> {
  for (const container of CONTAINERS.slice(1)) if (await container.opensFolder?.(path)) return container;
  return undefined;
}

async function containerOfFile(path: string): Promise<Container | undefined> {
  const { fd, size } = await openRegular(path);
  try {
    const prefix = new Uint8Array(Math.min(PREFIX_BYTES, size));
    await readFully(fd, path, 0, prefix);
    const found = CONTAINERS.find((container) => container.begins(prefix, size));
    // Of nothing the name says what it should have been.
    return found ?? (size === 0 ? containerOfName(path) : undefined);
  } finally {
    await closeFile(fd);
  }
}
