import { realpathSync } from 'node:fs';
import { plain } from '../../messages/text.js';
import { formatNumber, formatPercent, formatShape, plural } from '../../messages/units.js';
import { compareModels } from '../../models/compare.js';
import type { CompareReport, Progress } from '../../models/report.js';
import { defineCommand, toJson } from '../command.js';
import { ALL, FORCE, JSON_FLAG, NO_PROGRESS, THREADS, text, UsageError } from '../flags.js';
import { withProgress } from '../show/progress.js';
import { standOf } from '../show/stand.js';
import { bold, footnote, pairs, table } from '../show/table.js';

/** Rows without `--all`: a screenful with what stands around them. */
const SCREENFUL = 15;
/** Names in the line about tensors that should be equal and are not. */
const NAMED = 5;

export const compare = defineCommand({
  name: 'compare',
  args: ['original', 'quantized'],
  summary: 'measure the error of every quantized tensor against the original',
  details: [
    '--html writes a page of charts that needs no network: sizes, the error of every layer and kind of tensor, how weights and errors of each',
    'tensor are spread, and the groups that fit worst; with --plan what the plan was chosen from, too.',
  ].join('\n'),
  flags: {
    html: text('path', 'a page of charts to write: a .html file'),
    plan: text('path', 'the plan that bits are from, for the page: as hqq plan writes it'),
    all: ALL,
    threads: THREADS,
    force: FORCE,
    json: JSON_FLAG,
    quiet: NO_PROGRESS,
  },
  plan([original, quantized], { html, plan, all = false, threads, force = false, json = false, quiet = false }) {
    if (plan !== undefined && html === undefined)
      throw new UsageError('--plan is for the page that --html <path> writes.');
    if (samePlace(original!, quantized!)) {
      throw new UsageError(`Expected two models to compare, got ${plain(original!)} twice.`);
    }
    return async ({ signal, print }) => {
      const page = html === undefined ? undefined : await import('../report/write-page.js');
      await page?.checkPage(html!, [original!, quantized!], force); // before minutes of computing
      const named = plan === undefined ? undefined : await page!.readMeasuredPlan(plan);
      const seen = page && new page.Gatherer();
      const report = await withProgress('comparing', !json && !quiet, (update) => {
        const onProgress = (progress: Progress) => update(standOf(progress));
        return compareModels(original!, quantized!, { threads, signal, onProgress }, seen);
      });
      await page?.savePage(html!, { report, seen: seen!, plan: named }, force);
      print(
        json ? toJson(report) : `${describe(report, all)}${html === undefined ? '' : pairs([['page', html]])}`,
        html,
      );
    };
  },
});

/** Two names of one file or folder. What cannot be looked at is for the reader to complain about. */
function samePlace(a: string, b: string): boolean {
  try {
    return a === b || realpathSync(a) === realpathSync(b);
  } catch {
    return false;
  }
}

function describe(report: CompareReport, all: boolean): string {
  const { tensors, dense, totals, notes } = report;
  const sorted = [...tensors].sort((a, b) => b.relativeError - a.relativeError);
  const shown = all || sorted.length <= SCREENFUL + 1 ? sorted : sorted.slice(0, SCREENFUL);
  const columns = [
    { title: 'tensor, worst first' },
    { title: 'shape' },
    { title: 'stored as' },
    { title: 'relative error', align: 'right' },
    { title: 'mean absolute', align: 'right' },
    { title: 'largest', align: 'right' },
  ] as const;
  const rows = shown.map((tensor) => [
    plain(tensor.name),
    formatShape(tensor.shape),
    plain(tensor.storage),
    formatPercent(tensor.relativeError),
    formatNumber(tensor.meanAbsError),
    formatNumber(tensor.maxAbsError),
  ]);
  const hidden = sorted.length - shown.length;
  const cut = hidden > 0 ? footnote(`and ${plural(hidden, 'tensor')} with less error (--all shows them)`) : '';
  const summary: (readonly [string, string])[] = [
    ['compared', `${plural(tensors.length, 'tensor')}, ${plural(totals.weights, 'weight')}`],
    ['error', `${formatPercent(totals.relativeError)} relative, ${formatNumber(totals.meanAbsError)} mean absolute`],
    ['the others', describeDense(dense)],
    ...(notes.length > 0 ? [['note', notes.map(plain).join('\n')] as const] : []),
  ];
  const title = bold(`${plain(report.original)} <-> ${plain(report.quantized)}`);
  return `${title}\n\n${rows.length > 0 ? `${table(columns, rows)}${cut}\n` : ''}${pairs(summary)}`;
}

function describeDense({ equal, rounded, different }: CompareReport['dense']): string {
  const nearly = Object.entries(rounded).map(
    ([dtype, count]) => `${plural(count, 'tensor')} equal but for rounding (${dtype})`,
  );
  const same = [`${plural(equal, 'tensor')} equal`, ...nearly].join(', ');
  if (different.length === 0) return same;
  const named = different.slice(0, NAMED).map(plain).join(', ');
  const more = different.length > NAMED ? ` and ${different.length - NAMED} more` : '';
  return `${same}, ${plural(different.length, 'tensor')} different: ${named}${more}`;
}
