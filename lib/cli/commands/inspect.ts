import { plain } from '../../messages/text.js';
import { formatBytes, formatNumber, formatShape, plural } from '../../messages/units.js';
import { type Model, openModel } from '../../models/model.js';
import type { TensorInfo } from '../../models/report.js';
import { type ArchitectureInfo, describeArchitecture } from '../../models/select/describe.js';
import { defineCommand, toJson } from '../command.js';
import { ALL, JSON_FLAG } from '../flags.js';
import { architectureRows } from '../show/architecture.js';
import { families, times } from '../show/families.js';
import { bold, footnote, pairs, table } from '../show/table.js';

export const inspect = defineCommand({
  name: 'inspect',
  args: ['model'],
  summary: 'show what is in a model: tensors, formats, bits per weight, sizes',
  flags: { all: ALL, json: JSON_FLAG },
  plan([path], { all = false, json = false }) {
    return async ({ print }) => {
      const model = await openModel(path!);
      const { tensors, config } = model;
      const totals = total(tensors);
      // What hqq itself has quantized is none, whatever config.json says.
      const obstacle = totals.quantizedTensors > 0 ? undefined : model.obstacle();
      const { formats, loads, origin } = model.loading();
      await model.close();
      // A graph tells itself which tensors are weights.
      const hasGraph = config?.opset !== undefined;
      const architecture = config && !hasGraph && (await describeArchitecture(config, tensors));
      const about = {
        ...(formats.length > 0 ? { format: formats.join(', '), loads: ['hqq', ...loads] } : {}),
        ...(origin === undefined ? {} : { origin }),
        ...(architecture ? { architecture } : {}),
        ...(obstacle ? { obstacle } : {}),
      };
      if (json) print(toJson({ path: model.path, ...about, totals, tensors }));
      else print(describe(model.path, tensors, totals, about, all));
    };
  },
});

/** What a model is, beyond its tensors. */
interface About {
  /** How its layers are quantized, and who loads that. Absent where none is. */
  readonly format?: string;
  readonly loads?: readonly string[];
  /** What its weights were, where they are read as other numbers than its files hold. */
  readonly origin?: string;
  readonly architecture?: ArchitectureInfo;
  /** Why it cannot be quantized: another tool has, or it is no model. */
  readonly obstacle?: NonNullable<ReturnType<Model['obstacle']>>;
}

/** Sums over the tensors of a model. */
interface Totals {
  readonly tensors: number;
  readonly quantizedTensors: number;
  /** Numbers in all tensors, and in the quantized ones. */
  readonly parameters: number;
  readonly quantizedWeights: number;
  /** Codes, scales and zeros of quantized tensors over their weights; absent when there are none. */
  readonly bitsPerWeight?: number;
  readonly bytes: number;
}

const elementsOf = ({ shape }: TensorInfo) => shape.reduce((product, size) => product * size, 1);
const sum = <T>(list: readonly T[], of: (item: T) => number) => list.reduce((all, item) => all + of(item), 0);

function total(tensors: readonly TensorInfo[]): Totals {
  const quantized = tensors.filter((tensor) => tensor.quantized);
  const quantizedWeights = sum(quantized, elementsOf);
  const bits = sum(quantized, (tensor) => tensor.quantized!.bitsPerWeight * elementsOf(tensor));
  return {
    tensors: tensors.length,
    quantizedTensors: quantized.length,
    parameters: sum(tensors, elementsOf),
    quantizedWeights,
    ...(quantizedWeights > 0 ? { bitsPerWeight: bits / quantizedWeights } : {}),
    bytes: sum(tensors, ({ bytes }) => bytes),
  };
}

/** Most rows unless all are asked for. Models have some twenty families; a file of a hundred thousand names has that many. */
const MOST_ROWS = 500;

function describe(
  path: string,
  tensors: readonly TensorInfo[],
  totals: Totals,
  { architecture, obstacle, loads, origin }: About,
  all: boolean,
): string {
  const alike = (tensor: TensorInfo) => `${tensor.shape} ${storage(tensor)} ${bits(tensor)}`;
  const groups = all
    ? tensors.map((tensor) => ({ name: tensor.name, members: [tensor] }))
    : families(tensors, alike, MOST_ROWS);
  const rows = groups.map(({ name, members }) => {
    const first = members[0]!;
    const bytes = sum(members, (tensor) => tensor.bytes);
    return [
      plain(name),
      times(members.length),
      formatShape(first.shape),
      storage(first),
      bits(first),
      formatBytes(bytes),
    ];
  });
  const hidden = tensors.length - sum(groups, ({ members }) => members.length);
  const cut = hidden > 0 ? footnote(`and ${plural(hidden, 'tensor')} more (--all shows them)`) : '';
  const columns = [
    { title: 'tensor' },
    { title: '' },
    { title: 'shape' },
    { title: 'stored as' },
    { title: 'bits', align: 'right' },
    { title: 'size', align: 'right' },
  ] as const;
  const { quantizedTensors, quantizedWeights, bitsPerWeight } = totals;
  const summary: (readonly [string, string])[] = [
    ...(obstacle ? ([['not for hqq', `${obstacle.what}. ${obstacle.advice}`]] as const) : []),
    ...(architecture ? architectureRows(architecture) : []),
    [
      'tensors',
      `${plural(totals.tensors, 'tensor')}, ${plural(totals.parameters, 'parameter')}, ${formatBytes(totals.bytes)}`,
    ],
  ];
  if (bitsPerWeight !== undefined) {
    const what = `${plural(quantizedTensors, 'tensor')}, ${plural(quantizedWeights, 'weight')}`;
    summary.push(['quantized', `${what}, ${formatNumber(bitsPerWeight)} bits per weight with scales and zeros`]);
  }
  if (origin !== undefined) summary.push(['read as', origin]);
  if (loads !== undefined) summary.push(['loads in', loads.join(', ')]);
  return `${bold(plain(path))}\n\n${table(columns, rows)}${cut}\n${pairs(summary)}`;
}

function storage({ dtype, quantized: q }: TensorInfo): string {
  if (!q) return dtype ?? '?';
  const parts = [`${q.nbits}-bit`, `group ${q.groupSize}`, `axis ${q.axis}`, q.packing];
  if (q.metaBits) parts.push(`${q.metaBits}-bit scales`);
  else if (q.metaDtype) parts.push(`${q.metaDtype} scales`);
  if (q.bias) parts.push('bias');
  return parts.join(', ');
}

function bits(tensor: TensorInfo): string {
  if (tensor.quantized) return formatNumber(tensor.quantized.bitsPerWeight);
  const elements = elementsOf(tensor);
  return elements === 0 ? '-' : formatNumber((tensor.bytes * 8) / elements);
}
