import type { Step } from '../../binding.js';
import type { ResolvedQuantConfig } from '../matrix/config.js';
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

/** Scales and zeros of a layer or a matrix, their codes to be, and how they are made. */
export interface MetaJob {
  readonly meta: Required<QuantizedMeta>;
  /** The first reads `scale` and `zero` and writes all of `meta`; when all are done the former are as the latter says. */
  readonly steps: readonly Step[];
}

/**
 * Quantizes scales in sets of `scalesOfSet`, zeros all together, and widens them again, in place. Zeros that are codes stay so.
 *
 * The reference does it without its solver: `Quantizer.quantize(scale, nbits=8, group_size=128, axis=0, optimize=False)` and
 * `Quantizer.quantize(zero, nbits=8, channel_wise=False, optimize=False)`.
 *
 * @param bytes Gives memory for codes.
 */
export function metaJob(
  scale: Float32Array<ArrayBuffer>,
  zero: Float32Array<ArrayBuffer>,
  { referenceGuards, zeroPoint }: Pick<ResolvedQuantConfig, 'referenceGuards' | 'zeroPoint'>,
  threads: number,
  bytes: (kind: 'scale' | 'zero', count: number) => Uint8Array<ArrayBuffer> = (_, length) => new Uint8Array(length),
): MetaJob {
  const config = referenceGuards ? GUARDED : PLAIN;
  const count = scale.length;
  const make = (values: Float32Array, codes: Uint8Array<ArrayBuffer>, sets: number) => {
    const made: MetaCodes = { codes, scale: new Float32Array(sets), zero: new Float32Array(sets) };
    const { rows, cols, axis } = gridOf(made);
    const quantize = groupedQuantizeArgs({
      rows,
      cols,
      axis,
      format: BYTES,
      config,
      weights: values,
      dtype: 'float32',
      metaDtype: 'float32',
      packed: codes,
      scale: made.scale,
      zero: made.zero,
      stats: new Float64Array(5),
      threads: sets === 1 ? 1 : threads, // one set is one thread's work, and each would have scratch for all of it
    });
    const steps: readonly Step[] = [{ operation: 'quantize', args: quantize }, widenStep(made, values, threads)];
    return { bytes: made, steps };
  };
  const scales = make(scale, bytes('scale', count), count / scalesOfSet(count));
  if (zeroPoint !== 'float') {
    // They are codes, and stay what they are.
    const codes = bytes('zero', count);
    codes.set(zero);
    const whole = { codes, scale: Float32Array.of(1), zero: new Float32Array(1) };
    return { meta: { scale: scales.bytes, zero: whole }, steps: scales.steps };
  }
  const zeros = make(zero, bytes('zero', count), 1);
  return { meta: { scale: scales.bytes, zero: zeros.bytes }, steps: [...scales.steps, ...zeros.steps] };
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
