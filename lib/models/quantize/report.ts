import { relativeError } from '../../compute/arguments.js';
import type { TensorSource } from '../../containers/container.js';
import { containerNamed } from '../../containers/list.js';
import { endingNotes } from '../../files/endings.js';
import { yieldIfDue } from '../../files/event-loop.js';
import type { Prune } from '../../matrix/config.js';
import { quote } from '../../messages/text.js';
import { formatCount, formatPercent, plural } from '../../messages/units.js';
import { schemeNamed } from '../../schemes/list.js';
import type { Scheme } from '../../schemes/scheme.js';
import type { ModelReport, TensorReport } from '../report.js';
import type { ModelPlan } from './plan.js';
import { unitOf } from './prune.js';
import type { LayerResult } from './quantize-shard.js';

/** Relative error (root mean square error over root mean square) from which on a tensor is told to be of no use as it is. */
const RUINED = 0.5;
/** The relative error of zeros in place of the weights. */
const AS_ZEROS = 1;

/** What was made, or would be. */
export interface Made {
  /** As in `ModelReport`. */
  readonly importance: string;
  readonly notes: readonly string[];
  readonly results: readonly LayerResult[];
  readonly bytesAfter: number;
  readonly computeSeconds: number;
}

/** The report of a conversion. */
export async function reportQuantized(
  source: TensorSource,
  { container, scheme, config, dense, notes }: ModelPlan,
  { input, output, dryRun, requantized }: Pick<ModelReport, 'input' | 'output' | 'dryRun' | 'requantized'>,
  made: Made,
  seconds: number,
): Promise<ModelReport> {
  const order = new Map([...source.entries.keys()].map((name, index) => [name, index]));
  // In the order of the model, whichever was done first: so that sums are the same to the bit.
  const place = ({ layer }: LayerResult) => order.get(layer.site.weight.name)!;
  const results = [...made.results].sort((a, b) => place(a) - place(b));
  const tensors: TensorReport[] = [];
  for (const result of results) {
    tensors.push(reportTensor(schemeNamed(scheme), result));
    await yieldIfDue();
  }
  const weights = tensors.reduce((sum, { shape }) => sum + shape[0] * shape[1], 0);
  const zeros = tensors.reduce((sum, { shape, sparsity = 0 }) => sum + shape[0] * shape[1] * sparsity, 0);
  const sum = (part: (result: LayerResult) => number) => results.reduce((total, result) => total + part(result), 0);
  const absError = sum(({ sums }) => sums.absError);
  const ruined = tensors.filter((tensor) => tensor.relativeError >= RUINED);
  const harmful = ruined.filter((tensor) => tensor.relativeError > AS_ZEROS);
  return {
    input,
    output,
    config,
    importance: made.importance,
    dryRun,
    requantized,
    tensors,
    dense,
    totals: {
      weights,
      ...(zeros === 0 ? {} : { sparsity: zeros / weights }),
      bitsPerWeight: (8 * tensors.reduce((total, { bytesAfter }) => total + bytesAfter, 0)) / weights,
      bytesBefore: source.files.reduce((total, { size }) => total + size, 0),
      bytesAfter: made.bytesAfter,
      meanAbsError: absError / weights,
      relativeError: relativeError(
        sum(({ sums }) => sums.squaredError),
        sum(({ sums }) => sums.squaredWeight),
      ),
      seconds,
      computeSeconds: made.computeSeconds,
    },
    notes: [
      ...notes,
      ...endingNotes(output, source.kind, containerNamed(container)),
      ...made.notes,
      ...(ruined.length === 0 ? [] : [ruinedNote(ruined.length, tensors.length)]),
      ...(harmful.length === 0 ? [] : [harmfulNote(harmful, tensors.length)]),
    ],
  };
}

function ruinedNote(count: number, of: number): string {
  const lost = `${formatCount(count)} of ${plural(of, 'tensor')} lost half of their size or more to quantization`;
  return `${lost}: without training, a model like this says nothing of sense. Use more bits or smaller groups.`;
}

function harmfulNote(harmful: readonly TensorReport[], of: number): string {
  const [worst] = [...harmful].sort((a, b) => b.relativeError - a.relativeError);
  const lost = `${formatCount(harmful.length)} of ${plural(of, 'tensor')} came out further from the weights than zeros are`;
  const where = `the worst is ${quote(worst!.name)}, with a relative error of ${formatPercent(worst!.relativeError)}`;
  return `${lost}: ${where}. Use more bits or smaller groups there, or leave ${harmful.length === 1 ? 'it' : 'them'} dense (exclude, --exclude).`;
}

/** The part of a matrix's weights that is pruned. What is left of a row over whole patterns is not. */
function sparsityOf(prune: Prune, width: number): number {
  const [count, of] = unitOf(prune, width);
  return (Math.floor(width / of) * count) / width;
}

function reportTensor(scheme: Scheme, { layer: { site, form }, sums, seconds }: LayerResult): TensorReport {
  const { shape, weight } = site;
  const count = shape[0] * shape[1];
  const { packing, metaDtype, bytes } = scheme.summarize(form);
  return {
    name: weight.name,
    shape,
    config: form.config,
    packing,
    ...(metaDtype && { metaDtype }),
    ...(form.adapted === undefined ? {} : { adapted: form.adapted }),
    meanAbsError: sums.absError / count,
    meanSquaredError: sums.squaredError / count,
    relativeError: relativeError(sums.squaredError, sums.squaredWeight),
    ...(form.config.prune === 0 ? {} : { sparsity: sparsityOf(form.config.prune, shape[1]) }),
    bitsPerWeight: (8 * bytes) / count,
    bytesBefore: weight.end - weight.begin,
    bytesAfter: bytes,
    seconds,
  };
}
