import type { Step } from '../../binding.js';
import type { ResolvedQuantConfig } from '../matrix/config.js';
import { DTYPES } from '../matrix/dtype.js';
import { FORMATS } from '../matrix/format.js';
import { scalesOfSet } from '../matrix/metadata.js';
import { resolveQuantConfig } from '../matrix/options.js';
import type { MetaCodes, QuantizedMeta } from '../matrix/weight.js';
import { groupedDequantizeArgs, groupedQuantizeArgs } from './arguments.js';

// Quantizing scales and zeros: the same operations as those on weights.

/** A byte each. */
const BYTES = FORMATS[0]!;
const [PLAIN, GUARDED] = ([false, true] as const).map((referenceGuards) =>
  resolveQuantConfig({ nbits: 8, solver: 'minmax', referenceGuards }),
) as [ResolvedQuantConfig, ResolvedQuantConfig];

/**
 * Scales of one set that are quantized at once. An operation on a whole layer's has memory for all of it, and what is given back in such
 * pieces comes back late.
 */
const PIECE = 32 * 1024;

/** Scales and zeros of a layer or a matrix, their codes to be, and how they are made. */
export interface MetaJob {
  readonly meta: Required<QuantizedMeta>;
  /** Read `scale` and `zero` and write `meta`. To be run one after the other, each when it is asked for. */
  readonly steps: () => Iterable<Step>;
  /** Thereafter: make `scale` and `zero` what `meta` stands for. */
  readonly widening: readonly Step[];
}

/** Gives memory, from the beginning of a buffer on. */
type MetaMemory = (kind: 'scale' | 'zero' | 'piece', count: number) => Uint8Array<ArrayBuffer>;

/**
 * Quantizes scales in sets of `scalesOfSet`, zeros all together, and widens them again, in place. Zeros that are codes stay so.
 *
 * The reference does it without its solver: `Quantizer.quantize(scale, nbits=8, group_size=128, axis=0, optimize=False)` and
 * `Quantizer.quantize(zero, nbits=8, channel_wise=False, optimize=False)`.
 *
 * @param bytes Gives memory for codes; and, till `steps` are done, for a `piece`.
 */
export function metaJob(
  scale: Float32Array<ArrayBuffer>,
  zero: Float32Array<ArrayBuffer>,
  { referenceGuards, zeroPoint }: Pick<ResolvedQuantConfig, 'referenceGuards' | 'zeroPoint'>,
  threads: number,
  bytes: MetaMemory = (_, length) => new Uint8Array(length),
): MetaJob {
  const config = referenceGuards ? GUARDED : PLAIN;
  const count = scale.length;
  const make = (values: Float32Array, codes: Uint8Array<ArrayBuffer>, sets: number) => {
    const made: MetaCodes = { codes, scale: new Float32Array(sets), zero: new Float32Array(sets) };
    const { rows, cols, axis } = gridOf(made);
    const quantize = (weights: Float32Array, packed: Uint8Array<ArrayBuffer>): Step => {
      const args = groupedQuantizeArgs({
        ...{ axis, format: BYTES, config, weights, packed, scale: made.scale, zero: made.zero },
        ...{ rows, cols: sets === 1 ? weights.length : cols, dtype: 'float32', metaDtype: 'float32' },
        stats: new Float64Array(5),
        threads: sets === 1 ? 1 : threads, // one set is one thread's work
      });
      return { operation: 'quantize', args };
    };
    const steps = () =>
      sets > 1 || values.length <= PIECE ? [quantize(values, codes)] : inPieces(values, codes, bytes, quantize);
    return { bytes: made, steps, widening: widenStep(made, values, threads) };
  };
  const scales = make(scale, bytes('scale', count), count / scalesOfSet(count));
  if (zeroPoint !== 'float') {
    // They are codes, and stay what they are.
    const codes = bytes('zero', count);
    codes.set(zero);
    const whole = { codes, scale: Float32Array.of(1), zero: new Float32Array(1) };
    return { meta: { scale: scales.bytes, zero: whole }, steps: scales.steps, widening: [scales.widening] };
  }
  const zeros = make(zero, bytes('zero', count), 1);
  function* steps() {
    yield* scales.steps();
    yield* zeros.steps();
  }
  return { meta: { scale: scales.bytes, zero: zeros.bytes }, steps, widening: [scales.widening, zeros.widening] };
}

/** Quantizes one set piece by piece, each with the extremes of all of it: so each has its scale and its zero. */
function* inPieces(
  values: Float32Array,
  codes: Uint8Array,
  bytes: MetaMemory,
  quantize: (weights: Float32Array, packed: Uint8Array<ArrayBuffer>) => Step,
): Generator<Step> {
  const [least, most] = [new Float32Array(1), new Float32Array(1)];
  const all = { weights: values, dtype: DTYPES.float32.id, rows: 1, cols: values.length, axis: 1, threads: 1 } as const;
  yield { operation: 'extremes', args: { ...all, least, most } };
  const { buffer } = bytes('piece', PIECE * (Float32Array.BYTES_PER_ELEMENT + 1));
  const piece = new Float32Array(buffer, 0, PIECE);
  const packed = new Uint8Array(buffer, piece.byteLength, PIECE);
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

/** Sets are the columns of a matrix; one set is also a row, which is faster. */
function gridOf({ codes: { length }, scale: { length: sets } }: MetaCodes) {
  const [rows, cols, axis] = sets === 1 ? ([1, length, 1] as const) : ([length / sets, sets, 0] as const);
  return { rows, cols, axis };
}

/** Widens scales or zeros. */
export function widenStep(bytes: MetaCodes, out: Float32Array, threads: number): Step {
  const { codes: packed, scale, zero } = bytes;
  const { rows, cols, axis } = gridOf(bytes);
  const grid = { rows, cols, axis, format: BYTES, threads };
  const args = groupedDequantizeArgs({ ...grid, packed, scale, zero, dtype: 'float32', rounding: 'once', out });
  return { operation: 'dequantize', args };
}
