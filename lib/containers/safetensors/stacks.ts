import type { KnownModules, LinearSite, OtherTensor, TensorEntry } from '../container.js';
import { STACKED } from '../experts.js';
import { layerOf } from '../names.js';
import { numbersOf } from '../stored-types.js';

/**
 * What a 3-D tensor is that holds experts: a site, where it is known which way they lie; undefined for what holds none. As
 * transformers has them: `experts.gate_up_proj` with `experts.gate_up_proj_bias`, `input_linear.weight` without one.
 */
export function stackOf(
  entry: TensorEntry,
  entries: ReadonlyMap<string, TensorEntry>,
  known: KnownModules | undefined,
): LinearSite | OtherTensor | undefined {
  const { name: called, shape, type } = entry;
  if (shape.length !== 3) return undefined;
  const name = layerOf(called);
  const kind = known?.kindOf(name);
  const guessed = (kind === undefined || kind === 'unsure') && /(^|\.)experts(\.|$)/.test(called);
  if (kind !== 'experts' && !guessed) return undefined;
  const stored = known?.expertsOf(name);
  const [experts, rows, cols] = shape as [number, number, number];
  const other = (reason: string) => ({ entry, reason, linear: false });
  if (stored === undefined) return other(`${STACKED}, of which nothing says which way they lie`);
  if (numbersOf(type) === undefined) return other(`stored as ${type.name}`);
  if (experts * rows * cols === 0) return other('empty');
  const outs = stored === 'in-out' ? cols : rows;
  const bias = entries.get(name === called ? `${name}_bias` : `${name}.bias`);
  if (bias && (String(bias.shape) !== String([experts, outs]) || numbersOf(bias.type) === undefined)) {
    return other(`its bias is ${bias.type.name} [${bias.shape.join(', ')}]`);
  }
  return {
    ...{ name, weight: entry, shape: stored === 'in-out' ? [cols, rows] : [rows, cols], stored, experts },
    ...(bias === undefined ? {} : { bias }),
  };
}
