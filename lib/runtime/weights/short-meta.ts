import { provideShortMeta } from '../../backend/js/short-meta.js';
import type { PanelMemory } from '../../compute/panels.js';
import { formatNamed } from '../../matrix/format.js';

provideShortMeta();

/** Highest zero that groups may share: the middle of what a byte is a code of. */
const HIGHEST_ZERO = 255;

/** Gives arrays of zeros. */
interface Arrays {
  bytes(count: number): Uint8Array<ArrayBuffer>;
  floats(count: number): Float32Array<ArrayBuffer>;
}

/**
 * Memory for panels whose scales and zeros lie in the shortest way that is exact: a token of a language model comes as fast as its weights are
 * read, and of 4 bits in groups of 32 a third is scales and zeros in float32. Zeros of symmetric types are all the same, and what a file has in
 * float16 fits there.
 */
export function shortMeta(arrays: Arrays): PanelMemory {
  return (sizes, { shape, groupSize, packing, scale, zero }) => {
    const shared = sharedZero(zero);
    const half = areHalves(scale) && (shared >= 0 || areHalves(zero));
    const count = shared < 0 ? sizes.meta : sizes.meta / 2;
    return {
      shape: Int32Array.of(shape[0], shape[1], groupSize, formatNamed(packing)!.id, shared, half ? 1 : 0),
      codes: arrays.bytes(sizes.codes),
      meta: half ? halves(arrays.bytes(2 * count)) : arrays.floats(count),
    };
  };
}

const halves = ({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>) =>
  new Uint16Array(buffer, byteOffset, length / 2);

/** The code that all zeros are; -1 where they are not. */
function sharedZero(zeros: Float32Array): number {
  const first = zeros[0]!;
  if (!Number.isInteger(first) || first < 0 || first > HIGHEST_ZERO) return -1;
  for (let i = 1; i < zeros.length; i++) if (zeros[i] !== first) return -1;
  return first;
}

/** Whether float16 holds all of these. */
function areHalves(values: Float32Array): boolean {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) {
    const size = bits[i]! & 0x7fffffff;
    const isNormal = size >= 0x38800000 && size < 0x47800000 && (size & 0x1fff) === 0;
    if (!isNormal && (size >= 0x38800000 || (values[i]! * 2 ** 24) % 1 !== 0)) return false; // below are multiples of 2^-24
  }
  return true;
}
