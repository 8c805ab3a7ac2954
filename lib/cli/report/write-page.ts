import type { FileKind } from '../../files/file-kind.js';
import { checkTextOutput, saveText } from '../../files/text-file.js';
import { HqqError } from '../../messages/errors.js';
import { type NamedPlan, readBitPlan } from '../../models/bit-plan.js';
import { Gatherer } from '../../models/figures/gather.js';
import type { CompareReport } from '../../models/report.js';
import { pageOf } from './page.js';

export { Gatherer };

/** What is replaced by a page: a page. */
const PAGE: FileKind = {
  title: 'a page',
  ending: '.html',
  begins: (prefix) => /^\s*<!doctype html/i.test(Buffer.from(prefix).toString('latin1')),
  isPart: () => false,
};

/** Refuses what could not be written to, before anything is computed. @throws {HqqError} `ERR_IO`, `ERR_INVALID_OPTION` */
export function checkPage(path: string, inputs: readonly string[], force: boolean): Promise<void> {
  return checkTextOutput(path, { made: PAGE, inputs, force });
}

/** Writes what was seen as a page, whole or not at all. @throws {HqqError} `ERR_IO` */
export function savePage(
  path: string,
  content: { readonly report: CompareReport; readonly seen: Gatherer; readonly plan: NamedPlan | undefined },
  force: boolean,
): Promise<void> {
  const { report, seen, plan } = content;
  return saveText(path, pageOf({ report, figures: seen.figures(), plan: plan?.plan }), { made: PAGE, force });
}

/** A plan with what was measured for it. @throws {HqqError} as `readBitPlan`; `ERR_CHECKPOINT_FORMAT` for one without */
export async function readMeasuredPlan(path: string): Promise<NamedPlan> {
  const named = await readBitPlan(path);
  if (isMeasured(named.plan.report)) return named;
  const message = `${named.name}: expected the report of a plan, as hqq plan writes it, got none that can be drawn.`;
  throw new HqqError('ERR_CHECKPOINT_FORMAT', message);
}

type Loose = Readonly<Record<string, unknown>>;

/** Whether it has all that is drawn. A person may have edited it. */
function isMeasured(report: unknown): boolean {
  const isObject = (value: unknown): value is Loose => typeof value === 'object' && value !== null;
  if (!isObject(report) || !isObject(report.target) || !Array.isArray(report.curve)) return false;
  const unit = report.target.bits === undefined ? 'bytes' : 'bits';
  const numbers = (value: unknown, keys: readonly string[]) =>
    isObject(value) && keys.every((key) => typeof value[key] === 'number');
  return (
    numbers(report.target, [unit]) &&
    numbers(report, ['bits']) &&
    (report.line === undefined || numbers(report, ['line'])) &&
    [report.planned, report.uniform].every((score) => numbers(score, [unit, 'divergence'])) &&
    report.curve.every((point) => numbers(point, [unit, 'loss']))
  );
}
