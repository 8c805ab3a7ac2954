import { activeBackend } from '../backend/index.js';
import { widenBytes } from '../compute/floats.js';
import { widenBytesLater } from '../compute/later.js';
import { runTask, runTaskSync } from '../compute/run.js';
import type { TensorEntry, TensorSource } from '../containers/container.js';
import { weightOf } from '../containers/names.js';
import { quantizedTensor } from '../matrix/quantized-tensor.js';
import type { QuantizedTensor, RunOptions } from '../matrix/weight.js';
import { SCHEMES, schemeNamed } from '../schemes/list.js';
import type { LayerLoad, Scheme, StoredLayer } from '../schemes/scheme.js';

/** The schemes that a model may hold layers of. */
export function schemesOf({ container, stored = container }: TensorSource): readonly Scheme[] {
  return SCHEMES.filter(({ containers }) => containers.includes(stored));
}

/** Every quantized layer of a model, whatever its scheme. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` */
export async function findLayers(source: TensorSource, signal?: AbortSignal): Promise<readonly StoredLayer[]> {
  const layers: StoredLayer[] = [];
  for (const scheme of schemesOf(source)) layers.push(...(await scheme.find(source, signal)));
  return layers;
}

/**
 * What a model holds, under the names of the original, in the order of its files: each of `layers` where its first tensor stands,
 * and every tensor that is no part of one.
 */
export function tensorsOf(
  { entries }: TensorSource,
  layers: readonly StoredLayer[],
): ReadonlyMap<string, TensorEntry | StoredLayer> {
  const places = new Map(layers.map((layer) => [layer.entries[0], layer]));
  const parts = new Set(layers.flatMap((layer) => layer.entries));
  const tensors = new Map<string, TensorEntry | StoredLayer>();
  for (const entry of entries.values()) {
    const layer = places.get(entry);
    if (layer) tensors.set(weightName(layer), layer);
    else if (!parts.has(entry)) tensors.set(entry.name, entry);
  }
  return tensors;
}

/** Whether it is a quantized layer. */
export function isLayer(tensor: TensorEntry | StoredLayer): tensor is StoredLayer {
  return 'storage' in tensor;
}

/** The scheme that a layer is stored in. */
export function schemeOf(layer: StoredLayer): Scheme {
  return schemeNamed(layer.scheme);
}

/** Reads what a layer is made of. */
export function fillLayerSync(source: TensorSource, { reads, widens = [], prepare, steps = [] }: LayerLoad): void {
  for (const { entry, into } of reads) source.readSync(entry, 0, into);
  for (const { bytes, dtype, to } of widens) widenBytes(bytes, dtype, to);
  prepare?.();
  if (steps.length > 0) runTaskSync(activeBackend(), 'sequence', { steps });
}

/** `fillLayerSync` without blocking the event loop. */
export async function fillLayer(
  source: TensorSource,
  { reads, widens = [], prepare, steps = [] }: LayerLoad,
  run: RunOptions,
): Promise<void> {
  const reading = await Promise.allSettled(reads.map(({ entry, into }) => source.read(entry, 0, into, run.signal)));
  for (const result of reading) if (result.status === 'rejected') throw result.reason;
  for (const { bytes, dtype, to } of widens) await widenBytesLater(bytes, dtype, to, run);
  prepare?.();
  if (steps.length > 0) await runTask(activeBackend(), 'sequence', { steps }, run);
}

/** What a layer that was read cannot tell: the original is not there to be compared with. */
const UNKNOWN = Object.freeze({ meanAbsError: NaN, meanSquaredError: NaN, relativeError: NaN, iterations: NaN });

/** A layer that was read, as `quantize` gives one. */
export function readTensor(tensor: Omit<QuantizedTensor, 'stats'>): QuantizedTensor {
  const shape = Object.freeze([tensor.shape[0], tensor.shape[1]] as const);
  return quantizedTensor({ ...tensor, shape, stats: UNKNOWN });
}

/** Name of a layer's weight in the original. */
export function weightName({ name, bare }: StoredLayer): string {
  return weightOf(name, bare);
}

/** By what a model is known to be quantized; undefined when it is not, as far as its names tell. */
export function tracesOf(source: TensorSource): string | undefined {
  for (const scheme of schemesOf(source)) {
    const traces = scheme.traces(source);
    if (traces !== undefined) return traces;
  }
  return undefined;
}
