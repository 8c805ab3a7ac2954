import { plain } from '../../messages/text.js';
import {
  formatBytes,
  formatCount,
  formatNumber,
  formatPercent,
  formatRate,
  formatSeconds,
  formatShape,
  plural,
} from '../../messages/units.js';
import type { ModelReport, TensorReport } from '../../models/report.js';
import { describeConfigs, wideCodes } from './config.js';
import { families, times } from './families.js';
import { bold, pairs, table } from './table.js';

/** Layers that the summary names. */
const WORST = 5;
/** Lines of remarks of one kind; all of them are in `--json`. */
const REMARKS = 8;

/** `a -> b (2.84x smaller)` */
export function describeSizes(before: number, after: number): string {
  const factor = after === 0 || before === 0 ? 1 : before / after;
  const ratio = factor >= 1 ? `${formatNumber(factor)}x smaller` : `${formatNumber(1 / factor)}x larger`;
  return `${formatBytes(before)} -> ${formatBytes(after)} (${ratio})`;
}

/** What share of the output stayed as it was, and what: `50.3 % of the file: 1 embedding 50.2 %, 7 not a matrix 0.171 %`. */
function describeDense({ dense, totals }: ModelReport): string {
  if (dense.length === 0) return 'nothing';
  const share = (bytes: number) => formatPercent(bytes / totals.bytesAfter);
  const sums = new Map<string, { count: number; bytes: number }>();
  let all = 0;
  for (const { reason, bytes } of dense) {
    const sum = sums.get(reason) ?? { count: 0, bytes: 0 };
    sums.set(reason, { count: sum.count + 1, bytes: sum.bytes + bytes });
    all += bytes;
  }
  const sorted = [...sums].sort((a, b) => b[1].bytes - a[1].bytes);
  const parts = sorted.map(([reason, { count, bytes }]) => `${formatCount(count)} ${reason} ${share(bytes)}`);
  return `${share(all)} of the file: ${parts.join(', ')}`;
}

/** Stored bits of a weight, and where they are more than they need be. */
function bitsOf({ tensors, totals }: ModelReport): string {
  const bits = `${formatNumber(totals.bitsPerWeight)} per weight, scales and zeros included`;
  return [bits, ...wideCodes(tensors)].join('\n');
}

function firstLines(lines: readonly string[]): string {
  const more = lines.length - REMARKS;
  const shown = more > 1 ? lines.slice(0, REMARKS) : lines; // one more line is no longer than saying so
  return [...shown, ...(more > 1 ? [`and ${more} more (--json lists all)`] : [])].join('\n');
}

/** The end of `hqq quantize`. */
export function summarize(report: ModelReport): string {
  const { tensors, totals } = report;
  const compute = formatRate(totals.weights, totals.computeSeconds);
  const rows: (readonly [string, string])[] = [
    ['config', describeConfigs(report)],
    ...(report.importance === 'none' ? [] : [['importance', plain(report.importance)] as const]),
    ['quantized', `${plural(tensors.length, 'tensor')}, ${plural(totals.weights, 'weight')}`],
    ...(totals.sparsity === undefined
      ? []
      : [['pruned', `${formatPercent(totals.sparsity)} of these weights`] as const]),
    ['bits', bitsOf(report)],
    ['dense', describeDense(report)],
    ['size', describeSizes(totals.bytesBefore, totals.bytesAfter)],
    ['error', `${formatPercent(totals.relativeError)} relative, ${formatNumber(totals.meanAbsError)} mean absolute`],
    [
      'time',
      `${formatSeconds(totals.seconds)}, of which ${formatSeconds(totals.computeSeconds)} computing (${compute})`,
    ],
  ];
  const remarks: (readonly [string, string])[] = [];
  const adapted = tensors.filter((tensor) => tensor.adapted !== undefined);
  if (adapted.length > 0) {
    const alike = families(adapted, (tensor) => tensor.adapted!);
    const told = alike.map(
      ({ name, members }) => `${`${plain(name)} ${times(members.length)}`.trim()}: ${members[0]!.adapted}`,
    );
    remarks.push(['adapted', firstLines(told)]);
  }
  if (report.notes.length > 0) remarks.push(['note', report.notes.map(plain).join('\n')]);
  return [
    `${bold(`${plain(report.input)} -> ${plain(report.output)}`)}\n\n`,
    pairs(rows),
    '\n',
    worstLayers(tensors),
    remarks.length > 0 ? `\n${pairs(remarks)}` : '',
  ].join('');
}

function worstLayers(tensors: readonly TensorReport[]): string {
  const worst = [...tensors].sort((a, b) => b.relativeError - a.relativeError).slice(0, WORST);
  return table(
    [
      { title: worst.length < tensors.length ? 'worst layers' : 'layers' },
      { title: 'shape' },
      { title: 'relative error', align: 'right' },
      { title: 'mean absolute', align: 'right' },
      { title: 'bits', align: 'right' },
    ],
    worst.map((tensor) => [
      plain(tensor.name),
      formatShape(tensor.shape),
      formatPercent(tensor.relativeError),
      formatNumber(tensor.meanAbsError),
      formatNumber(tensor.bitsPerWeight),
    ]),
  );
}

/** What `--dry-run` shows: every tensor and what would become of it. */
export function planTable(report: ModelReport): string {
  const { tensors, dense, totals } = report;
  const rows = [
    ...tensors.map(({ name, shape, config, adapted, bytesBefore, bytesAfter }) => {
      const wouldBe = `${config.nbits}-bit, group ${config.groupSize}, axis ${config.axis}`;
      const remark = adapted === undefined ? '' : ` (${adapted})`;
      return [plain(name), formatShape(shape), wouldBe + remark, formatBytes(bytesBefore), formatBytes(bytesAfter)];
    }),
    ...dense.map(({ name, shape, reason, bytes }) => {
      return [plain(name), formatShape(shape), `kept: ${reason}`, formatBytes(bytes), formatBytes(bytes)];
    }),
  ];
  const columns = [
    { title: 'tensor' },
    { title: 'shape' },
    { title: 'would be' },
    { title: 'now', align: 'right' },
    { title: 'then', align: 'right' },
  ] as const;
  const quantized = `${plural(tensors.length, 'tensor')} with ${plural(totals.weights, 'weight')}`;
  const lines: (readonly [string, string])[] = [
    ['config', describeConfigs(report)],
    ['quantize', quantized],
    ['bits', bitsOf(report)],
    ['dense', describeDense(report)],
    ['size', describeSizes(totals.bytesBefore, totals.bytesAfter)],
    ...(report.notes.length > 0 ? [['note', report.notes.map(plain).join('\n')] as const] : []),
  ];
  return `${table(columns, rows)}\n${pairs(lines)}`;
}
