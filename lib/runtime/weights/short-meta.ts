import { provideShortMeta } from '../../backend/js/short-meta.js';
import type { PanelMemory } from '../../compute/panels.js';
import { inTurns, type Steps } from '../../files/event-loop.js';
import { formatNamed } from '../../matrix/format.js';
import type { QuantizedTensorLike } from '../../matrix/weight.js';

provideShortMeta();

/** Highest zero that groups may share: the middle of what a byte is a code of. */
const HIGHEST_ZERO = 255;

/** Gives arrays of zeros. */
interface Arrays {
  bytes(count: number): Uint8Array<ArrayBuffer>;
  floats(count: number): Float32Array<ArrayBuffer>;
}

/** Memory for the panels of a matrix, once its scales and zeros were looked at. */
export type PanelsFor = (q: Pick<QuantizedTensorLike, 'scale' | 'zero'>, signal?: AbortSignal) => Promise<PanelMemory>;

/**
 * Memory for panels whose scales and zeros lie in the shortest way that is exact: a token of a language model comes as fast as its weights are
 * read, and of 4 bits in groups of 32 a third is scales and zeros in float32. Zeros of symmetric types are all the same, and what a file has in
 * float16 fits there. A large layer has millions: they are looked at in turns of the event loop.
 */
export function shortMeta(arrays: Arrays): PanelsFor {
  return async ({ scale, zero }, signal) => {
    const { shared, half } = await inTurns(shortestSteps(scale, zero), signal);
    return (sizes, { shape, groupSize, packing }) => {
      const count = shared < 0 ? sizes.meta : sizes.meta / 2;
      return {
        shape: Int32Array.of(shape[0], shape[1], groupSize, formatNamed(packing)!.id, shared, half ? 1 : 0),
        codes: arrays.bytes(sizes.codes),
        meta: half ? halves(arrays.bytes(2 * count)) : arrays.floats(count),
      };
    };
  };
}

/** How they may lie: the zero that all share, or -1, and whether float16 holds the rest. */
export function* shortestSteps(scale: Float32Array, zero: Float32Array): Steps<{ shared: number; half: boolean }> {
  const [first, all] = [zero[0]!, (piece: Float32Array) => areAll(piece, zero[0]!)];
  const isCode = Number.isInteger(first) && first >= 0 && first <= HIGHEST_ZERO;
  const shared = isCode && (yield* every(zero, all)) ? first : -1;
  const half = (yield* every(scale, areHalves)) && (shared >= 0 || (yield* every(zero, areHalves)));
  return { shared, half };
}

/** Numbers that are looked at between turns. */
const PIECE = 1 << 15;

function* every(values: Float32Array, holds: (piece: Float32Array) => boolean): Steps<boolean> {
  for (let at = 0; at < values.length; at += PIECE) {
    if (!holds(values.subarray(at, at + PIECE))) return false;
    yield;
  }
  return true;
}

const halves = ({ buffer, byteOffset, length }: Uint8Array<ArrayBuffer>) =>
  new Uint16Array(buffer, byteOffset, length / 2);

function areAll(values: Float32Array, one: number): boolean {
  for (let i = 0; i < values.length; i++) if (values[i] !== one) return false;
  return true;
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
