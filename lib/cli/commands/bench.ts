import { cpus } from 'node:os';
import { availableBackends, backend, openBackend } from '../../backend/index.js';
import { plain } from '../../messages/text.js';
import { formatBytes, formatLarge, formatNumber, formatRate, formatSeconds, plural } from '../../messages/units.js';
import { packageVersion } from '../../models/quantize/version.js';
import { defineCommand, toJson } from '../command.js';
import { count, JSON_FLAG, NO_PROGRESS, UsageError } from '../flags.js';
import { withProgress } from '../show/progress.js';
import { bold, pairs, table } from '../show/table.js';
import { BATCHES, type BenchRow, CASES, type Memcpy, measureBackend, measureMemcpy } from './bench-cases.js';

const SIZE = 4096;
/** JavaScript gets a matrix that it solves in tenths of a second. Rates are per weight, and so can be compared. */
const JS_SIZE = 1024;

export const bench = defineCommand({
  name: 'bench',
  args: [],
  summary: 'measure how fast this machine quantizes and multiplies, native code beside JavaScript',
  details: 'The unit is a memcpy of the same matrix in the same run: what merely touching the weights would cost.',
  flags: {
    size: count('n', 'rows and columns of the matrix', [64, 16384], SIZE),
    json: JSON_FLAG,
    quiet: NO_PROGRESS,
  },
  plan(_args, { size = SIZE, json = false, quiet = false }) {
    if (size % 64 !== 0) throw new UsageError(`Expected --size to be a multiple of 64, got ${size}.`);
    return async ({ signal, print }) => {
      const { isa, threads } = backend();
      const memcpy = measureMemcpy(size);
      const counts = threads > 1 ? [1, threads] : [1];
      const runs = [
        ...(isa === 'js' ? [] : [{ isa, side: size, counts }]),
        { isa: 'js' as const, side: Math.min(size, JS_SIZE), counts: [1] },
      ];
      const total = runs.reduce((sum, run) => sum + run.counts.length * CASES.length, 0);
      const rows = await withProgress('measuring', !json && !quiet, async (update) => {
        const measured: BenchRow[] = [];
        const tell = () =>
          update({ done: measured.length, total, step: [Math.min(measured.length + 1, total), total] });
        tell();
        for (const run of runs) {
          for await (const row of measureBackend(openBackend(run.isa), run.side, run.counts, signal)) {
            measured.push(row);
            tell();
          }
        }
        return measured;
      });
      const report = {
        hqq: packageVersion(),
        node: process.version,
        cpu: cpus()[0]?.model.trim() ?? 'unknown',
        isa,
        threads,
        available: availableBackends(),
        size,
        memcpy,
        rows: rows.map((row) => withRates(row, memcpy)),
      };
      print(json ? toJson(report) : describe(report));
    };
  },
});

/** A row with what is read from it: its speed, and its time per weight in units of memcpy's. Of products, also their arithmetic. */
function withRates({ product, ...row }: BenchRow, memcpy: Memcpy) {
  const weightsPerSecond = row.weights / row.seconds;
  const timesMemcpy = row.seconds / row.weights / (memcpy.seconds / memcpy.weights);
  // A multiplication and an addition for each weight and row of x.
  const flopPerSecond = product && 2 * product.batch * weightsPerSecond;
  return { ...row, ...product, weightsPerSecond, timesMemcpy, flopPerSecond };
}

interface BenchReport {
  readonly cpu: string;
  readonly node: string;
  readonly isa: string;
  readonly threads: number;
  readonly size: number;
  readonly memcpy: Memcpy;
  readonly rows: readonly ReturnType<typeof withRates>[];
}

function describe({ cpu, node, isa, threads, size, memcpy, rows }: BenchReport): string {
  const bytes = memcpy.weights * Float32Array.BYTES_PER_ELEMENT;
  const kernels = isa === 'js' ? 'no native backend (hqq doctor tells why)' : isa;
  const head = pairs([
    ['machine', `${plain(cpu)}, ${plural(threads, 'thread')}, ${kernels}, Node.js ${node}`],
    [
      'matrix',
      `${size} x ${size} float32 (${formatBytes(bytes)}); 4-bit, group 64, axis 1, solver joint, packed; medians`,
    ],
    [
      'products',
      `a QuantizedLinear of it, laid out, times ${BATCHES.join(' and ')} rows of x: float32, or rounded to int8`,
    ],
    [
      'memcpy',
      `${formatSeconds(memcpy.seconds)}, ${formatBytes(bytes / memcpy.seconds)}/s: the unit of the column "x memcpy"`,
    ],
  ]);
  const columns = [
    { title: 'operation' },
    { title: 'backend' },
    { title: 'threads', align: 'right' },
    { title: 'matrix' },
    { title: 'time', align: 'right' },
    { title: 'x memcpy', align: 'right' },
    { title: 'rate', align: 'right' },
  ] as const;
  const body = rows.map((row) => [
    operationName(row),
    row.isa,
    String(row.threads),
    `${row.size} x ${row.size}`,
    formatSeconds(row.seconds),
    formatNumber(row.timesMemcpy),
    row.flopPerSecond === undefined ? formatRate(row.weights, row.seconds) : `${formatLarge(row.flopPerSecond)}FLOP/s`,
  ]);
  return `${bold(`hqq ${packageVersion()} bench`)}\n\n${head}\n${table(columns, body)}`;
}

/** `quantize`, `lay out`, `multiply 64 rows, int8`. */
function operationName({ operation, batch, activations }: BenchReport['rows'][number]): string {
  if (batch === undefined) return operation === 'layOut' ? 'lay out' : operation;
  return `multiply ${plural(batch, 'row')}, ${activations}`;
}
