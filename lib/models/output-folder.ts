import * as fs from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Checkpoint } from '../containers/safetensors/checkpoint.js';
import type { Layout } from '../containers/safetensors/layout.js';
import type { SafetensorsFile } from '../containers/safetensors/reader.js';
import { ensureFreeSpace, withPath } from '../files/io.js';
import { type OutputKind, StagedOutput } from '../files/staged-output.js';
import { compareBytes } from '../messages/text.js';

/** A conversion of a checkpoint into another of the same shape: a file into a file, a folder into a folder. */
export interface Conversion {
  readonly checkpoint: Checkpoint;
  readonly output: string;
  readonly force: boolean;
  readonly signal: AbortSignal | undefined;
  /** The new text of config.json. */
  readonly config: (text: string) => string;
  /** What each file of the input becomes, as far as it is known. */
  readonly layouts: ReadonlyMap<SafetensorsFile, Layout>;
  /** Writes the new form of `file` to `path`, to the disk, with the mode `mode`; returns what was written. */
  readonly write: (file: SafetensorsFile, path: string, layout: Layout, mode: number) => Promise<Layout>;
}

/**
 * Writes the new files, the index, config.json and everything else of the folder beside the target, and puts all in place at
 * the end. A failure or an abort leaves nothing.
 *
 * @returns bytes of all safetensors files
 */
export async function convertFolder(conversion: Conversion): Promise<number> {
  const { checkpoint, output, force, signal, layouts } = conversion;
  const { kind, inputs } = inputsOf(checkpoint);
  const staged = await StagedOutput.begin(output, kind, { force, inputs, like: inputs[0] });
  try {
    const needed = [...layouts.values()].reduce((sum, { fileSize }) => sum + fileSize, 0);
    await ensureFreeSpace(dirname(resolve(output)), needed);
    const written = new Map<string, Layout>();
    for (const [file, layout] of layouts) {
      const name = staged.kind === 'file' ? '.' : file.name;
      const mode = await staged.modeOf(name);
      written.set(file.name, await conversion.write(file, join(staged.path, name), layout, mode));
    }
    if (staged.kind === 'folder') await writeRest(conversion, staged, written);
    signal?.throwIfAborted();
    await staged.commit();
    return [...written.values()].reduce((sum, { fileSize }) => sum + fileSize, 0);
  } catch (error) {
    await staged.abandon();
    throw error;
  }
}

/** What a checkpoint is, and what must not be harmed when another is made from it. */
export function inputsOf({ folder, files }: Checkpoint): {
  readonly kind: OutputKind;
  readonly inputs: readonly string[];
} {
  if (folder !== undefined) return { kind: 'folder', inputs: [folder] };
  return { kind: 'file', inputs: files.map(({ path }) => path) };
}

async function writeRest(
  { checkpoint, config, signal }: Conversion,
  staged: StagedOutput,
  written: ReadonlyMap<string, Layout>,
) {
  if (checkpoint.indexName !== undefined) await staged.writeFile(checkpoint.indexName, indexText(written));
  if (checkpoint.config) await staged.writeFile('config.json', config(checkpoint.config.text));
  for (const name of checkpoint.otherFiles) {
    signal?.throwIfAborted();
    await staged.copyFile(join(checkpoint.folder!, name), name, signal);
  }
}

/** The index of the shards, as transformers writes it. */
function indexText(shards: ReadonlyMap<string, Layout>): string {
  const pairs: [tensor: string, shard: string][] = [];
  let size = 0;
  for (const [shard, { entries }] of shards) {
    for (const { name, begin, end } of entries.values()) {
      pairs.push([name, shard]);
      size += end - begin;
    }
  }
  pairs.sort((a, b) => compareBytes(a[0], b[0]));
  // Not through an object: names that are whole numbers would come first, and "__proto__" not at all.
  const lines = pairs.map(([tensor, shard]) => `    ${JSON.stringify(tensor)}: ${JSON.stringify(shard)}`);
  return `{\n  "metadata": {\n    "total_size": ${size}\n  },\n  "weight_map": {\n${lines.join(',\n')}\n  }\n}\n`;
}

/** Removes a file that is to be written anew. */
export async function removeFile(path: string): Promise<void> {
  await withPath('Cannot replace', path, () => fs.rm(path));
}
