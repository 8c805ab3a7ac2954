import type { FileKind } from '../files/file-kind.js';
import { checkTextOutput, saveText } from '../files/text-file.js';
import type { BitPlan } from '../models/bit-plan.js';

/** What is replaced by a plan: a plan, or what looks like one. */
const PLAN: FileKind = {
  title: 'a plan',
  ending: '.json',
  begins: (prefix) => /^\s*\{\s*"version"/.test(Buffer.from(prefix).toString('latin1')),
  isPart: () => false,
};

/** Refuses what could not be written to, before anything is computed for it. @throws {HqqError} `ERR_IO`, `ERR_INVALID_OPTION` */
export function checkPlanOutput(path: string, model: string, force: boolean): Promise<void> {
  return checkTextOutput(path, { made: PLAN, inputs: [model], force });
}

/** Writes a plan, whole or not at all. @throws {HqqError} `ERR_IO` */
export function savePlan(path: string, plan: BitPlan, force: boolean): Promise<void> {
  return saveText(path, `${JSON.stringify(plan, null, 2)}\n`, { made: PLAN, force });
}
