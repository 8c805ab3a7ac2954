import { basename, dirname, join, resolve } from 'node:path';
import type { FileKind } from './file-kind.js';
import { closeFile, createFile, syncFile, writeFully } from './io.js';
import { checkApart, checkReplaceable } from './output-rules.js';
import { checkParent } from './parents.js';
import { StagedOutput } from './staged-output.js';

// A text that a command writes: a plan, a page.

/** Refuses what could not be written to, before anything is computed for it. @throws {HqqError} `ERR_IO`, `ERR_INVALID_OPTION` */
export async function checkTextOutput(
  path: string,
  { made, inputs, force }: { readonly made: FileKind; readonly inputs: readonly string[]; readonly force: boolean },
): Promise<void> {
  const absolute = resolve(path);
  const place = join(await checkParent(dirname(absolute)), basename(absolute));
  await checkApart(place, [...inputs]).catch((error: unknown) => {
    if ((error as { code?: string }).code !== 'ERR_IO') throw error; // a model in the cache has a name that is no path
  });
  await checkReplaceable(place, 'file', made, force);
}

/** Writes a text, whole or not at all. @throws {HqqError} `ERR_IO` */
export async function saveText(
  path: string,
  text: string,
  { made, force }: { readonly made: FileKind; readonly force: boolean },
): Promise<void> {
  const staged = await StagedOutput.begin(path, 'file', { made, force, inputs: [] });
  try {
    const fd = await createFile(staged.path, await staged.modeOf('.'));
    try {
      await writeFully(fd, staged.path, 0, Buffer.from(text));
      await syncFile(fd, staged.path);
    } finally {
      await closeFile(fd);
    }
    await staged.commit();
  } catch (error) {
    await staged.abandon();
    throw error;
  }
}
