import { narrowBytes } from '../../compute/floats.js';
import { widenBytesLater } from '../../compute/later.js';
import type { Machine } from '../../compute/run.js';
import type { TensorSource } from '../../containers/container.js';
import { DTYPES } from '../../matrix/dtype.js';
import { allocating } from '../../messages/allocating.js';
import { transpose } from '../../schemes/rows/streams.js';
import type { PlannedLayer } from '../../schemes/scheme.js';
import { factorize } from './factor.js';
import { feedBack } from './feed-back.js';
import type { Overlaid } from './overlaid.js';

/** Where weights come from, and where those go that are to be quantized. */
export interface Place {
  readonly source: TensorSource;
  readonly refined: Overlaid;
  readonly machine: Machine;
}

/** The sum of `x xT` over all inputs of some layers, `[width, width]`. */
interface Sums {
  readonly width: number;
  readonly sums: Float32Array;
}

/** What is known of a layer whose inputs have been seen. */
export interface SeenLayer {
  readonly name: string;
  /** `[inFeatures]`: what its errors count. */
  readonly importance: Float32Array;
  /** Whether it has error feedback. */
  readonly fed: boolean;
}

/**
 * Refines the layers of one input: those of the same group size share a factorization. Those that have no error feedback keep their
 * weights, and their errors count what the sums' diagonal says. Where that is not finite nothing is known of any: none is given.
 */
export async function refineLayers(
  layers: readonly PlannedLayer[],
  { width, sums }: Sums,
  { source, refined, machine }: Place,
): Promise<readonly SeenLayer[]> {
  const squares = Float32Array.from({ length: width }, (_, i) => sums[i * width + i]!);
  // What two features have in common is no larger than the larger of these.
  if (!squares.every(Number.isFinite)) return [];
  const fit = layers.filter(isFit);
  const done: SeenLayer[] = layers
    .filter((layer) => !fit.includes(layer))
    .map(({ site: { name } }) => ({ name, importance: squares, fed: false }));
  for (const groupSize of new Set(fit.map(({ form }) => form.config.groupSize!))) {
    const alike = fit.filter(({ form }) => form.config.groupSize === groupSize);
    const wide = Math.ceil(width / groupSize) * groupSize;
    const factor = await factorize(widened(sums, width, width, wide, wide), wide, groupSize, machine);
    for (const layer of alike) {
      const { weight, shape, stored } = layer.site;
      const [outs, ins] = shape;
      const turned = stored === 'in-out';
      const dtype = weight.type.float!;
      const count = outs * ins;
      const numbers = () => allocating('the weights of a layer', () => new Float32Array(count));
      const bytes = allocating('the weights of a layer', () => new Uint8Array(count * DTYPES[dtype].bytes));
      await source.read(weight, 0, bytes, machine.signal);
      const lying = numbers();
      await widenBytesLater(bytes, dtype, lying, machine);
      const weights = turned ? transpose(lying, ins, outs, numbers()) : lying;
      const wanted = await feedBack(widened(weights, outs, ins, outs, wide, true), factor, layer.form.config, machine);
      const own = widened(wanted, outs, wide, outs, ins);
      narrowBytes(turned ? transpose(own, outs, ins, lying) : own, dtype, bytes);
      await refined.put(weight, bytes);
      done.push({ name: layer.site.name, importance: factor.importance.subarray(0, ins), fed: true });
    }
  }
  return done;
}

/** A matrix of other sides: what it lacks is 0, or, `again`, the last of its row; what it has too many goes. */
function widened(
  values: Float32Array,
  rows: number,
  cols: number,
  toRows: number,
  toCols: number,
  again = false,
): Float32Array {
  if (rows === toRows && cols === toCols) return values;
  const wide = allocating('a wider matrix of a layer', () => new Float32Array(toRows * toCols));
  const width = Math.min(cols, toCols);
  for (let row = 0; row < Math.min(rows, toRows); row++) {
    wide.set(values.subarray(row * cols, row * cols + width), row * toCols);
    if (again) wide.fill(values[(row + 1) * cols - 1]!, row * toCols + width, (row + 1) * toCols);
  }
  return wide;
}

/**
 * Whether a layer's groups are parts of rows, several a row, and its weight a whole tensor. A group may end a row before it is full where
 * its form says so. A table that is looked up in, too, stays: what is multiplied by is not all that counts there.
 */
export function isFit({ site, form }: PlannedLayer): boolean {
  const { groupSize, axis } = form.config;
  const plain = site.weight.type.float !== undefined && site.partOf === undefined && site.embedding !== true;
  const cut = groupSize !== null && (site.shape[1] % groupSize === 0 || form.tails === true);
  return plain && axis === 1 && cut && groupSize < site.shape[1];
}
