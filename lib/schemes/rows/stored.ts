import { bytesOf } from '../../compute/floats.js';
import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { show } from '../../messages/errors.js';
import { formatError, quote, quoteSome } from '../../messages/text.js';
import { plural } from '../../messages/units.js';

// Checks of layers that are found in a model: nothing that it says is trusted.

/** Ends in an error, of a layer and where it is. */
export type Refuse = (message: string) => never;

/** The errors of one layer of a file. */
export function refusalOf(file: string, layer: string): Refuse {
  return (message) => {
    throw formatError(file, `quantized layer ${quote(layer)} ${message}.`);
  };
}

/** A tensor, for messages. */
export function describe({ type, shape }: TensorEntry): string {
  return `${type.name} [${shape.slice(0, 8).join(', ')}]`;
}

/** The words of bytes that were read. */
export function wordsIn(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

/** Whether a tensor is of this type and shape. */
export function isLike({ type, shape }: TensorEntry, name: string, sizes: readonly number[]): boolean {
  return type.name === name && shape.length === sizes.length && shape.every((size, i) => size === sizes[i]);
}

/** The bias of a layer, if it has one. Refuses a layer that has a weight beside its codes. */
export function biasOf(
  { entries }: TensorSource,
  layer: string,
  outs: number,
  refuse: Refuse,
): TensorEntry | undefined {
  if (entries.has(`${layer}.weight`)) refuse('has both a weight and codes of one');
  const bias = entries.get(`${layer}.bias`);
  if (bias && (bias.type.float === undefined || bias.shape.length !== 1 || bias.shape[0] !== outs)) {
    refuse(`has ${describe(bias)} as bias, where a floating-point [${outs}] is needed`);
  }
  return bias;
}

/**
 * The group of each input feature, from a tensor that says it; undefined where groups are neighbours, as without it.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_FORMAT` for groups that there are not, or that have not `groupSize` features each.
 */
export async function readGroupOf(
  source: TensorSource,
  entry: TensorEntry,
  ins: number,
  groupSize: number,
  refuse: Refuse,
  signal?: AbortSignal,
): Promise<Uint32Array | undefined> {
  const name = entry.name.slice(entry.name.lastIndexOf('.') + 1);
  if (!isLike(entry, 'I32', [ins])) return refuse(`has ${describe(entry)} as ${name}, where I32 [${ins}] is needed`);
  const groupOf = new Int32Array(ins);
  await source.read(entry, 0, bytesOf(groupOf), signal);
  const counts = new Uint32Array(ins / groupSize);
  let plain = true;
  for (let feature = 0; feature < ins; feature++) {
    const group = groupOf[feature]!;
    if (group < 0 || group >= counts.length) {
      refuse(`has ${name} ${group} at ${feature}, where a group, 0 to ${counts.length - 1}, is needed`);
    }
    counts[group]!++;
    plain &&= group === Math.floor(feature / groupSize);
  }
  if (plain) return undefined;
  const odd = counts.findIndex((count) => count !== groupSize);
  if (odd >= 0) refuse(`has ${name} with ${counts[odd]} features in group ${odd}, where ${groupSize} are needed`);
  return new Uint32Array(groupOf.buffer);
}

/** What a configuration says of quantized layers. */
export function declaredOf(config: Readonly<Record<string, unknown>> | undefined): Readonly<Record<string, unknown>> {
  const said = config?.quantization_config ?? config?.compression_config;
  return typeof said === 'object' && said !== null ? (said as Record<string, unknown>) : {};
}

/** Bits that a configuration may speak of. */
const MAX_BITS = 8;

/**
 * The bits of codes that a configuration says; undefined where it says none. Of those that are `given`, since it may say them of several.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_FORMAT` for what are no bits.
 */
export function bitsSaid(given: unknown, refuse: Refuse): number | undefined {
  if (given === undefined || given === null) return undefined;
  if (typeof given === 'number' && Number.isInteger(given) && given >= 1 && given <= MAX_BITS) return given;
  return refuse(`is of ${show(given)} bits, as config.json says, where a number from 1 to ${MAX_BITS} is needed`);
}

/**
 * Refuses groups of other sizes than a configuration says: rows whose last group is shorter look like rows of smaller groups.
 *
 * @param given `group_size` of the configuration: -1 (or null) for whole rows, undefined where it says none.
 * @param varies Some layers have other sizes, of which it speaks elsewhere.
 * @returns Input features of a group.
 * @throws {HqqError} `ERR_CHECKPOINT_FORMAT`
 */
export function groupSizeOf(ins: number, groups: number, given: unknown, refuse: Refuse, varies = false): number {
  const size = given === undefined || given === null ? undefined : given;
  if (size !== undefined && !(typeof size === 'number' && Number.isInteger(size) && (size === -1 || size > 0))) {
    refuse(
      `has groups of ${show(size)}, as config.json says, where a positive number, or -1 for whole rows, is needed`,
    );
  }
  if (ins % groups !== 0) refuse(`has ${groups} groups, which do not divide ${ins} input features`);
  const own = ins / groups;
  if (size === undefined || varies || size === own || groups === 1) return own;
  const what = size === -1 ? 'whole rows' : String(size);
  return refuse(`has ${groups} groups of ${ins} input features, where config.json says groups of ${what}`);
}

/** By what a model is known to hold layers of a tool: "2 layers hold AWQ weights ("a.qweight" and 1 more)". */
export function tellTraces(tool: string, names: readonly string[]): string | undefined {
  if (names.length === 0) return undefined;
  return `${plural(names.length, 'layer')} ${names.length === 1 ? 'holds' : 'hold'} ${tool} weights (${quoteSome(names, 1)})`;
}
