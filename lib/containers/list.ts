import * as fs from 'node:fs/promises';
import { findModel } from '../files/hub-cache.js';
import { closeFile, openRegular, readFully } from '../files/io.js';
import type { Container, TensorSource } from './container.js';
import { safetensors } from './safetensors/container.js';

/** Every container, once. Of several that would open a model the first one does; the very first opens what none knows, and says why not. */
export const CONTAINERS: Container[] = [safetensors];

/** Bytes of a file that are shown to containers. */
const PREFIX_BYTES = 64;

/** The container of this name. */
export function containerNamed(name: string): Container {
  const container = CONTAINERS.find((known) => known.name === name);
  if (container === undefined) throw new RangeError(`Expected the name of a container, got ${name}.`);
  return container;
}

/**
 * Opens a model: a file, a folder, or what stands for a folder in the cache of Hugging Face (`org/name`, the root of its entry).
 *
 * @throws {HqqError} `ERR_IO` for what is not there or cannot be read, `ERR_CHECKPOINT_FORMAT` for what breaks the format,
 * `ERR_CHECKPOINT_CONTENT` for a folder without a model or with several.
 */
export async function openSource(given: string): Promise<TensorSource> {
  const path = await findModel(given);
  const first = CONTAINERS[0]!;
  const stat = await fs.stat(path).catch(() => undefined);
  if (!stat?.isFile() && !stat?.isDirectory()) return first.open(path); // which says what it is instead
  const prefix = stat.isFile() ? await prefixOf(path) : undefined;
  return (CONTAINERS.find((container) => container.sniff(path, prefix)) ?? first).open(path);
}

async function prefixOf(path: string): Promise<Uint8Array> {
  const { fd, size } = await openRegular(path);
  try {
    const prefix = new Uint8Array(Math.min(PREFIX_BYTES, size));
    await readFully(fd, path, 0, prefix);
    return prefix;
  } finally {
    await closeFile(fd);
  }
}
