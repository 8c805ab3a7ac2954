import { widenBytes } from '../../compute/floats.js';
import { pathOfFile, type TensorEntry, type TensorSink, type TensorSource } from '../../containers/container.js';
import { type Range, readRanges, writeRanges } from '../../containers/ranges.js';
import { rounding } from '../../containers/rounding.js';
import type { Scratch } from '../../containers/scratch.js';
import { numbersOf, storedFloat } from '../../containers/stored-types.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { PlannedLayer, Scheme } from '../../schemes/scheme.js';

/** Writes a piece of a bias, rounded to what the scheme stores. */
export async function convertBias(
  layer: PlannedLayer,
  bias: TensorEntry,
  piece: Range,
  sink: TensorSink,
  { scheme, source: input }: { readonly scheme: Scheme; readonly source: TensorSource },
  slot: Scratch,
  signal: AbortSignal,
): Promise<void> {
  const dtype = numbersOf(bias.type)!;
  const to = scheme.biasDtype(layer.form);
  const source =
    to === undefined ? input : rounding(input, (entry, { overflows }) => refuseOverflow(input, entry, overflows));
  const { blockBytes: size } = to === undefined ? bias.type : storedFloat(dtype);
  const bytes = slot.take('weights', Uint8Array, piece.count * size);
  await readRanges(source, bias, [piece], size, bytes, slot, signal);
  let stored: Uint8Array = bytes;
  if (to !== undefined && dtype !== to) {
    const values = slot.take('bias', Float32Array, piece.count);
    widenBytes(bytes, dtype, values);
    stored = scheme.encodeBias(layer, values, slot);
  }
  await writeRanges(sink, bias.name, [piece], to === undefined ? size : storedFloat(to).blockBytes, stored, signal);
}

/** A bias beyond float32 is refused as such a weight is. */
function refuseOverflow(source: TensorSource, bias: TensorEntry, overflows: number): void {
  if (overflows === 0) return;
  const what = `Expected the numbers of ${quote(bias.name)} in ${plain(pathOfFile(source, bias))} to fit into float32, in which biases are computed`;
  const advice = 'Leave its layer as it is (exclude, --exclude).';
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${what}, but ${overflows} of them would be infinite. ${advice}`);
}
