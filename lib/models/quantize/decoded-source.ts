import { activeBackend } from '../../backend/index.js';
import { bitsOf, bytesOf } from '../../compute/floats.js';
import { resolveThreads, runTask } from '../../compute/run.js';
import type { Envelope, TensorEntry, TensorSource } from '../../containers/container.js';
import type { Grid } from '../../containers/grid.js';
import { Scratch } from '../../containers/scratch.js';
import { storedFloat } from '../../containers/stored-types.js';
import { copyStored, storedShape } from '../../containers/transpose.js';
import type { QuantConfig } from '../../matrix/config.js';
import { plural } from '../../messages/units.js';
import { schemeNamed } from '../../schemes/list.js';
import type { Chunk, StoredLayer } from '../../schemes/scheme.js';
import { fillLayer, isLayer, schemeOf, tensorsOf, weightName } from '../layers.js';
import type { ModelPlan } from './plan.js';

// A model that HQQ has quantized, as the numbers that its layers are: what it becomes in another format is made of these.

/** Decoded chunks, and layers' scales and zeros, that are kept: several parts of one are read side by side. */
const KEPT = { chunks: 8, grids: 3 };

/** Reads a quantized model as one of floats. */
export class DecodedSource implements TensorSource {
  readonly container: string;
  readonly path: string;
  readonly kind: TensorSource['kind'];
  readonly files: TensorSource['files'];
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly envelope: Envelope;
  readonly gridSize: TensorSource['gridSize'];
  readonly #base: TensorSource;
  readonly #layers: ReadonlyMap<string, StoredLayer>;
  readonly #chunks = new Map<string, Promise<Float32Array>>();
  readonly #grids = new Map<string, Promise<Grid | undefined>>();

  /** @param keeps Whether what is made of it is to keep the codes, unless something else is asked for. */
  constructor(base: TensorSource, layers: readonly StoredLayer[], keeps = false) {
    const { container, path, kind, files, envelope } = base;
    this.container = container;
    this.path = path;
    this.kind = kind;
    this.files = files;
    this.#base = base;
    this.#layers = new Map(layers.map((layer) => [weightName(layer), layer]));
    if (keeps)
      this.gridSize = ({ name }) => {
        const layer = this.#layers.get(name);
        return layer && { nbits: layer.storage.nbits, groupSize: inRows(layer) ? layer.storage.groupSize : 0 };
      };
    this.entries = new Map(
      [...tensorsOf(base, layers)].map(([name, tensor]) => [name, isLayer(tensor) ? floatEntry(tensor) : tensor]),
    );
    const drop = [...new Set(layers.flatMap((layer) => schemeOf(layer).settings))];
    this.envelope = envelope.replace({ layers: [], set: {}, drop });
  }

  async read(entry: TensorEntry, at: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    const layer = this.#layers.get(entry.name);
    if (layer === undefined) return this.#base.read(entry, at, into, signal);
    const end = at + into.length;
    let index = 0;
    for (const chunk of schemeOf(layer).storedChunks(layer)) {
      const own = index++;
      // The columns that lie side by side in a tensor [in, out] are of every chunk.
      const held = chunk.weights.some((range) => 4 * range.at < end && 4 * (range.at + range.count) > at);
      if (layer.stored === 'out-in' && !held) continue;
      const bytes = bytesOf(await this.#decode(layer, own, chunk, signal));
      copyStored(layer, chunk.weights, 4, bytes, at, into);
    }
  }

  readSync(entry: TensorEntry, at: number, into: Uint8Array): void {
    if (this.#layers.has(entry.name)) throw new RangeError(`Expected ${entry.name} to be read without blocking.`);
    this.#base.readSync(entry, at, into);
  }

  readSpan(file: string, begin: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#base.readSpan(file, begin, into, signal);
  }

  close(): Promise<void> {
    return this.#base.close();
  }

  /** Scales and zeros of a layer whose groups are parts of its rows; undefined for others. */
  grid({ name }: TensorEntry, signal?: AbortSignal): Promise<Grid | undefined> {
    const layer = this.#layers.get(name);
    if (layer === undefined || !hasGrid(layer)) return Promise.resolve(undefined);
    return kept(this.#grids, name, KEPT.grids, async () => {
      const load = schemeOf(layer).load(layer);
      await fillLayer(this.#base, load, { signal });
      const { scale, zero } = load.finish();
      const { nbits, groupSize } = layer.storage;
      return { nbits, groupSize, scale, zero };
    });
  }

  #decode(layer: StoredLayer, index: number, chunk: Chunk, signal: AbortSignal | undefined): Promise<Float32Array> {
    return kept(this.#chunks, `${index} ${layer.name}`, KEPT.chunks, async () => {
      const run = { signal: signal ?? new AbortController().signal, threads: resolveThreads() };
      const weights = await schemeOf(layer).decode(this.#base, layer, chunk, 'float32', {
        ...{ ...run, slot: new Scratch() },
        compute: (operation, args) => runTask(activeBackend(), operation, args, { signal: run.signal }),
      });
      return bitsOf(weights, 'float32') as Float32Array;
    });
  }
}

const inRows = ({ shape, stored, storage: { axis, groupSize } }: StoredLayer) =>
  axis === 1 && stored === 'out-in' && shape[1] % groupSize === 0;

/** Whether codes, scales and zeros say what a layer holds, to the bit. */
const hasGrid = (layer: StoredLayer) => inRows(layer) && !schemeOf(layer).loadNumbers;

function floatEntry(layer: StoredLayer): TensorEntry {
  const { file, begin } = layer.entries[0];
  const shape = storedShape(layer);
  return {
    name: weightName(layer),
    type: storedFloat('float32'),
    shape,
    file,
    begin,
    end: begin + 4 * shape[0] * shape[1],
  };
}

/** What `make` gives, of which the last `most` are kept. What fails is not. */
function kept<T>(cache: Map<string, Promise<T>>, key: string, most: number, make: () => Promise<T>): Promise<T> {
  const known = cache.get(key);
  if (known) return known;
  if (cache.size >= most) cache.delete(cache.keys().next().value!);
  const made = make();
  cache.set(key, made);
  made.catch(() => cache.delete(key));
  return made;
}

/** Bits and groups of the layers, by the names of their weights: what is asked for where nothing else is. */
export function ownConfigs(layers: readonly StoredLayer[]): Readonly<Record<string, QuantConfig>> {
  return Object.fromEntries(
    layers.map((layer) => {
      const { nbits, groupSize } = layer.storage;
      const group = inRows(layer) ? { groupSize } : {};
      return [weightName(layer), { nbits: nbits as NonNullable<QuantConfig['nbits']>, ...group }];
    }),
  );
}

/** What people should know of such a conversion. */
export function decodedNotes(layers: readonly StoredLayer[], { shards, scheme }: ModelPlan): readonly string[] {
  const own = new Map(layers.map((layer) => [weightName(layer), layer]));
  const planned = shards.flatMap((shard) => shard.layers);
  const { title } = schemeOf(layers[0]!);
  const { keepsGrids } = schemeNamed(scheme);
  const held = planned.filter(({ form }) => form.kept).length;
  const same = planned.filter(({ site, form: { config } }) => {
    const layer = own.get(site.weight.name);
    const storage = layer?.storage;
    const alike = storage?.nbits === config.nbits && storage.groupSize === config.groupSize;
    return keepsGrids && alike && hasGrid(layer!) && config.zeroPoint === 'float';
  }).length;
  const anew = planned.length - same - held;
  const codes = [
    ...(same > 0 ? [`${plural(same, 'layer')} keep their codes, scales and zeros`] : []),
    ...(held > 0 ? [`${plural(held, 'layer')} keep their codes, with scales and minima rounded to float16`] : []),
    ...(anew > 0 ? [`${plural(anew, 'layer')} were fitted anew to the numbers that they were`] : []),
  ];
  return [
    `The model was quantized with ${title}: ${codes.join(', ')}. Errors are what this conversion adds; what is made of the float original has smaller ones.`,
  ];
}
