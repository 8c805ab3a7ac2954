import type { ResolvedQuantConfig } from '../../matrix/config.js';
import { formatFor } from '../../matrix/format.js';
import { defaultOf, OPTION_NAMES } from '../../matrix/options.js';
import { plural } from '../../messages/units.js';
import type { ModelReport, TensorReport } from '../../models/report.js';
import { kebab } from '../flags.js';

/** Kinds of layers that are told apart; all of them are in `--json`. */
const KINDS = 6;

/** Options that are told whatever they are. */
const NAMED: readonly string[] = ['nbits', 'groupSize', 'axis', 'solver'];

/** `4-bit, group 64, axis 1, solver hqq`, and whatever else is not the default. */
function describeConfig(config: ResolvedQuantConfig): string {
  const group =
    config.granularity === 'tensor'
      ? 'whole matrices'
      : config.groupSize === null
        ? config.axis === 1
          ? 'whole rows'
          : 'whole columns'
        : `group ${config.groupSize}`;
  const parts = [`${config.nbits}-bit`, group, `axis ${config.axis}`, `solver ${config.solver}`];
  for (const name of OPTION_NAMES) {
    const has = (list: readonly string[] = []) => list.includes(name);
    const [isOpen, isChosen] = [has(config.auto), has(config.chosen)];
    const isDefault = config[name] === defaultOf(name, config.solver) && !isOpen && !isChosen;
    if (NAMED.includes(name) || isDefault) continue;
    parts.push(
      config[name] === true
        ? kebab(name).replace('-', ' ')
        : `${kebab(name).replace('-', ' ')} ${isOpen ? 'auto' : config[name]}${isChosen ? ' (chosen)' : ''}`,
    );
  }
  return parts.join(', ');
}

/** The one configuration of all layers, or "mixed" and a line for each kind, the one with most weights first. */
export function describeConfigs({ config, tensors }: ModelReport): string {
  const kinds = new Map<string, { count: number; weights: number }>();
  for (const tensor of tensors) {
    const text = describeConfig(asAsked(tensor, config));
    const kind = kinds.get(text) ?? { count: 0, weights: 0 };
    kind.count++;
    kind.weights += tensor.shape[0] * tensor.shape[1];
    kinds.set(text, kind);
  }
  if (kinds.size === 1) return [...kinds.keys()][0]!;
  const sorted = [...kinds].sort(([, a], [, b]) => b.weights - a.weights);
  const lines = sorted.slice(0, KINDS).map(([text, { count }]) => `${text}: ${plural(count, 'tensor')}`);
  const more = sorted.length - lines.length;
  return ['mixed', ...lines, ...(more > 0 ? [`and ${more} kinds more (--json lists all)`] : [])].join('\n');
}

/** A layer's configuration in the words of the request: where that was for whole rows, so many weights are one. */
function asAsked({ config, shape }: TensorReport, asked: ResolvedQuantConfig): ResolvedQuantConfig {
  const whole = config.axis === 1 ? shape[1] : shape[0];
  return asked.groupSize === null && config.groupSize === whole ? { ...config, groupSize: null } : config;
}

/** What is stored in more bits than it has, a line for each bit width: "6-bit codes take 8 bits each in the file, ...". */
export function wideCodes(tensors: readonly TensorReport[]): readonly string[] {
  const ours = tensors.filter(({ config, packing }) => formatFor(config.nbits).packing === packing); // others have all bits
  const widths = new Set(ours.map(({ config }) => config.nbits as number));
  return [...widths].flatMap((nbits) => {
    const stored = formatFor(nbits).codeBits;
    if (stored === nbits) return [];
    return [`${nbits}-bit codes take ${stored} bits each in the file: --nbits ${stored} is as small, and more exact`];
  });
}
