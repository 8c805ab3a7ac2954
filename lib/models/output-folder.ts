import { dirname, join, resolve } from 'node:path';
import type { Envelope, Layout, TensorEntry, TensorSource } from '../containers/container.js';
import type { FileKind } from '../files/file-kind.js';
import { ensureFreeSpace } from '../files/io.js';
import { StagedOutput } from '../files/staged-output.js';

/** A conversion of a model into another of the same shape: a file into a file, a folder into a folder. */
interface Conversion {
  readonly source: TensorSource;
  readonly output: string;
  /** What its files will be: their container. */
  readonly made: FileKind;
  readonly force: boolean;
  readonly signal: AbortSignal | undefined;
  /** What will surround the new tensors. */
  readonly envelope: Envelope;
  /** What each file becomes, by name, as far as it is known. */
  readonly layouts: ReadonlyMap<string, Layout>;
  /** Bytes that lie beside the output meanwhile. @default 0 */
  readonly meanwhile?: number;
  /** Called once nothing speaks against the output, before the first file: what takes long, and would be for nothing. */
  readonly begin?: () => Promise<void>;
  /** Writes the new form of a file to `path`, to the disk, with permissions `mode`; returns what was written. */
  readonly write: (file: string, path: string, layout: Layout, mode: number) => Promise<Layout>;
}

interface Converted {
  readonly bytes: number;
  readonly notes: readonly string[];
}

/**
 * Writes the new files and all that surrounds them beside the target, and puts everything in place at the end. A failure or an
 * abort leaves nothing.
 *
 * @returns bytes of all files that hold tensors, and what users should know of the place
 */
export async function convertFolder(conversion: Conversion): Promise<Converted> {
  const { source, output, made, force, signal, envelope, layouts } = conversion;
  const inputs = inputsOf(source);
  const staged = await StagedOutput.begin(output, source.kind, { made, force, inputs, like: inputs[0] });
  try {
    const needed = [...layouts.values()].reduce((sum, { fileSize }) => sum + fileSize, conversion.meanwhile ?? 0);
    await ensureFreeSpace(dirname(resolve(output)), needed, staged);
    await conversion.begin?.();
    let bytes = 0;
    const written = new Map<string, Iterable<TensorEntry>>();
    for (const [file, layout] of layouts) {
      const name = staged.kind === 'file' ? '.' : (envelope.outputName?.(file) ?? file);
      if (staged.kind === 'folder') await staged.makeFoldersOf(name);
      const mode = await staged.modeOf(name);
      const { entries, fileSize } = await conversion.write(file, join(staged.path, name), layout, mode);
      written.set(file, entries.values());
      bytes += fileSize;
    }
    if (staged.kind === 'folder') await writeCompanions(staged, envelope, written, signal);
    signal?.throwIfAborted();
    await staged.commit();
    return { bytes, notes: await staged.notes() };
  } catch (error) {
    await staged.abandon();
    throw error;
  }
}

/** What must not be harmed when another model is made from one. */
export function inputsOf({ kind, path, files, inputs }: TensorSource): readonly string[] {
  if (inputs !== undefined) return inputs;
  return kind === 'folder' ? [path] : files.map((file) => file.path);
}

/** Writes what surrounds the tensors. */
export async function writeCompanions(
  staged: StagedOutput,
  envelope: Envelope,
  files: ReadonlyMap<string, Iterable<TensorEntry>>,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const companion of envelope.companions(files)) {
    signal?.throwIfAborted();
    if ('text' in companion) await staged.writeFile(companion.name, companion.text);
    else await staged.copyFile(companion.copyOf, companion.name, signal);
  }
}
