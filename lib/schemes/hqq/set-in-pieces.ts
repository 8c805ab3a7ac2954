import type { Step } from '../../../binding.js';
import type { Scratch } from '../../containers/scratch.js';
import { DTYPES } from '../../matrix/dtype.js';

/**
 * Values that are quantized at once. An operation on those of a whole layer would have memory for all of them, and what is given back in
 * so large pieces comes back late.
 */
const PIECE = 32 * 1024;

/** Quantizes one set piece by piece, each with the extremes of all of it: so each has its scale and its zero. */
export function* setInPieces(
  values: Float32Array,
  codes: Uint8Array<ArrayBuffer>,
  quantize: (values: Float32Array, codes: Uint8Array<ArrayBuffer>) => Step,
  memory: Scratch,
): Generator<Step> {
  if (values.length <= PIECE) {
    yield quantize(values, codes);
    return;
  }
  const [least, most] = [new Float32Array(1), new Float32Array(1)];
  const all = { weights: values, dtype: DTYPES.float32.id, rows: 1, cols: values.length, axis: 1, threads: 1 } as const;
  yield { operation: 'extremes', args: { ...all, least, most } };
  const piece = memory.take('piece', Float32Array<ArrayBuffer>, PIECE);
  const packed = memory.take('codes of a piece', Uint8Array<ArrayBuffer>, PIECE);
  const held = PIECE - 2;
  for (let at = 0; at < values.length; at += held) {
    const own = values.subarray(at, at + held);
    piece.fill(least[0]!);
    piece[PIECE - 1] = most[0]!;
    piece.set(own);
    yield quantize(piece, packed);
    codes.set(packed.subarray(0, own.length), at);
  }
}
