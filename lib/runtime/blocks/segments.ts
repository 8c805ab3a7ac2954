import type { CacheSegment } from '../../../binding.js';
import { KEY_STRIP } from '../../matrix/constants.js';

/** Positions that two segments share: from where they come, where they go, and how many. */
export interface Range {
  readonly at: number;
  readonly put: number;
  readonly count: number;
}

type Segments = readonly (readonly CacheSegment[])[];

/** Which segments hold the same of the first `length` positions, in whole strips. */
export function* overlaps(
  from: Segments,
  to: Segments,
  length: number,
): Generator<[from: readonly CacheSegment[], to: readonly CacheSegment[], range: Range]> {
  const most = Math.ceil(length / KEY_STRIP) * KEY_STRIP;
  let begin = 0;
  for (const old of from) {
    const end = Math.min(most, begin + old[0]!.capacity);
    let first = 0;
    for (const now of to) {
      const [at, past] = [Math.max(begin, first), Math.min(end, first + now[0]!.capacity)];
      if (at < past) yield [old, now, { at: at - begin, put: at - first, count: past - at }];
      first += now[0]!.capacity;
    }
    begin += old[0]!.capacity;
  }
}

/** Memory as what is kept in it. */
export function elementsOf(dtype: string, floats: Float32Array): CacheSegment['keys'] {
  const { buffer, byteOffset, byteLength } = floats;
  switch (dtype) {
    case 'float16':
      return new Uint16Array(buffer, byteOffset, byteLength / Uint16Array.BYTES_PER_ELEMENT);
    case 'int8':
      return new Uint8Array(buffer, byteOffset, byteLength);
    default:
      return floats;
  }
}
