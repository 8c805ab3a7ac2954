import type { TensorEntry, TensorSource } from './container.js';

/** Numbers that are rounded at once. */
const MOST = 128 * 1024;

/** Reads tensors as the numbers that they are computed with. */
export type NumberSource = Pick<TensorSource, 'read'>;

/**
 * `source`, of which tensors of float64 read as float32, each number rounded once: positions and bytes are those of float32, and
 * `into` must lie as aligned. All others read as they are.
 */
export function rounding(source: NumberSource): NumberSource {
  return {
    read: (entry, at, into, signal) =>
      entry.type.rounded === undefined
        ? source.read(entry, at, into, signal)
        : readRounded(source, entry, at, into, signal),
  };
}

async function readRounded(
  source: NumberSource,
  entry: TensorEntry,
  at: number,
  into: Uint8Array,
  signal: AbortSignal | undefined,
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
  }
}
