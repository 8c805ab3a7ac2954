import { basename, dirname, join, resolve } from 'node:path';
import type { FileKind } from '../files/file-kind.js';
import { closeFile, createFile, syncFile, writeFully } from '../files/io.js';
import { checkApart, checkReplaceable } from '../files/output-rules.js';
import { checkParent } from '../files/parents.js';
import { StagedOutput } from '../files/staged-output.js';
import type { BitPlan } from '../models/bit-plan.js';

/** What is replaced by a plan: a plan, or what looks like one. */
const PLAN: FileKind = {
  title: 'a plan',
  ending: '.json',
  begins: (prefix) => /^\s*\{\s*"version"/.test(Buffer.from(prefix).toString('latin1')),
  isPart: () => false,
};

/** Refuses what could not be written to, before anything is computed for it. @throws {HqqError} `ERR_IO`, `ERR_INVALID_OPTION` */
export async function checkPlanOutput(path: string, model: string, force: boolean): Promise<void> {
  const absolute = resolve(path);
  const place = join(await checkParent(dirname(absolute)), basename(absolute));
  await checkApart(place, [model]).catch((error: unknown) => {
    if ((error as { code?: string }).code !== 'ERR_IO') throw error; // a model in the cache has a name that is no path
  });
  await checkReplaceable(place, 'file', PLAN, force);
}

/** Writes a plan, whole or not at all. @throws {HqqError} `ERR_IO` */
export async function savePlan(path: string, plan: BitPlan, force: boolean): Promise<void> {
  const staged = await StagedOutput.begin(path, 'file', { made: PLAN, force, inputs: [] });
  try {
    const fd = await createFile(staged.path, await staged.modeOf('.'));
    try {
      await writeFully(fd, staged.path, 0, Buffer.from(`${JSON.stringify(plan, null, 2)}\n`));
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
