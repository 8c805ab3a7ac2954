import type { TensorEntry, TensorSource } from './container.js';

/** Numbers that are rounded at once. */
const MOST = 128 * 1024;

/** What rounding did to a number of a tensor: `overflows`, to one that was finite. */
export type Loss = 'rounds' | 'overflows';

/** Told, after each part that is read, of how many numbers were rounded and how many of these became infinite. */
export type LossListener = (entry: TensorEntry, losses: Readonly<Record<Loss, number>>) => void;

/** Reads tensors as the numbers that they are computed with. */
export type NumberSource = Pick<TensorSource, 'read'>;

/**
 * `source`, of which tensors of float64 read as float32, each number rounded once: positions and bytes are those of float32, and
 * `into` must lie as aligned. All others read as they are.
 *
 * @param onLoss Is called for parts of which some number is not what it was.
 */
export function rounding(source: NumberSource, onLoss?: LossListener): NumberSource {
  return {
    read: (entry, at, into, signal) =>
      entry.type.rounded === undefined
        ? source.read(entry, at, into, signal)
        : readRounded(source, entry, at, into, signal, onLoss),
  };
}

async function readRounded(
  source: NumberSource,
  entry: TensorEntry,
  at: number,
  into: Uint8Array,
  signal: AbortSignal | undefined,
  onLoss: LossListener | undefined,
): Promise<void> {
  const to = new Float32Array(into.buffer, into.byteOffset, into.byteLength / Float32Array.BYTES_PER_ELEMENT);
  const wide = new Float64Array(Math.min(MOST, to.length));
  for (let done = 0; done < to.length; done += MOST) {
    const part = wide.subarray(0, Math.min(MOST, to.length - done));
    await source.read(
      entry,
      2 * at + done * wide.BYTES_PER_ELEMENT,
      new Uint8Array(part.buffer, 0, part.byteLength),
      signal,
    );
    to.set(part, done);
    if (onLoss === undefined) continue;
    const losses = lossesOf(part, to.subarray(done, done + part.length));
    if (losses.rounds > 0) onLoss(entry, losses);
  }
}

/** How many numbers are others after rounding. NaN stays NaN, whatever its bits. */
export function lossesOf(from: ArrayLike<number>, to: ArrayLike<number>): Readonly<Record<Loss, number>> {
  const losses = { rounds: 0, overflows: 0 };
  for (let i = 0; i < from.length; i++) {
    const [before, after] = [from[i]!, to[i]!];
    if (before === after || Number.isNaN(before)) continue;
    losses.rounds++;
    if (Number.isFinite(before) && !Number.isFinite(after)) losses.overflows++;
  }
  return losses;
}
