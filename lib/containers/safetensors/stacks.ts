import type { LinearSite, OtherTensor, TensorEntry } from '../container.js';
import { expertLayers, STACKED } from '../experts.js';
import type { KnownModules } from '../known-modules.js';
import { configParts, layerOf, modelTypesOf } from '../names.js';
import { numbersOf } from '../stored-types.js';

/**
 * What a 3-D tensor is that holds experts: a site, where it is known which way they lie; undefined for what holds none. As
 * transformers has them: `experts.gate_up_proj` with `experts.gate_up_proj_bias`, `input_linear.weight` without one.
 */
export function stackOf(
  entry: TensorEntry,
  entries: ReadonlyMap<string, TensorEntry>,
  known: KnownModules | undefined,
  config?: Readonly<Record<string, unknown>>,
): LinearSite | OtherTensor | undefined {
  const { name: called, shape, type } = entry;
  if (shape.length !== 3) return undefined;
  const name = layerOf(called);
  const kind = known?.kindOf(name);
  const guessed = (kind === undefined || kind === 'unsure') && /(^|\.)experts(\.|$)/.test(called);
  if (kind !== 'experts' && !guessed) return undefined;
  const [experts, rows, cols] = shape as [number, number, number];
  const stored = known?.expertsOf(name) ?? storedBySize(name, [rows, cols], config);
  const other = (reason: string) => ({ entry, reason, linear: false });
  if (stored === undefined) return other(`${STACKED}, of which nothing says which way they lie`);
  if (numbersOf(type) === undefined) return other(`stored as ${type.name}`);
  if (experts * rows * cols === 0) return other('empty');
  const outs = stored === 'in-out' ? cols : rows;
  const bias = entries.get(name === called ? `${name}_bias` : `${name}.bias`);
  if (bias && (String(bias.shape) !== String([experts, outs]) || numbersOf(bias.type) === undefined)) {
    return other(`its bias is ${bias.type.name} [${bias.shape.join(', ')}]`);
  }
  const layers = expertLayers(name, modelTypesOf(config));
  const cut = layers?.interleaved && stored === 'out-in' ? undefined : layers;
  if (cut && outs % cut.names.length !== 0) return other(`${outs} outputs, which are not those of two layers`);
  return {
    ...(cut === undefined ? {} : { layers: cut }),
    ...{ name, weight: entry, shape: stored === 'in-out' ? [cols, rows] : [rows, cols], stored, experts },
    ...(bias === undefined ? {} : { bias }),
  };
}

type Config = Readonly<Record<string, unknown>>;

/** Which way experts lie of a class that is not known to hold them so, where one side alone is as long as what goes through the model. */
function storedBySize(
  name: string,
  [rows, cols]: readonly [number, number],
  config: Config | undefined,
): LinearSite['stored'] | undefined {
  const sizes = configParts(config).map(({ hidden_size }) => hidden_size);
  if (!/\.(gate_up|down)_proj$/.test(name) || sizes.includes(rows) === sizes.includes(cols)) return undefined;
  return sizes.includes(rows) === name.endsWith('.down_proj') ? 'out-in' : 'in-out';
}
