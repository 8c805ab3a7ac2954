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
  /** Read `scale` and `zero` and write `meta`. To be run one after the other, once, each when it is asked for. */
  readonly steps: Iterable<Step>;
  /** Thereafter: make `scale` and `zero` what `meta` stands for. */
  readonly widening: readonly Step[];
}

/** Quantizes values of one set; its scale and its zero are those of their extremes. */
type QuantizeSet = (values: Float32Array, codes: Uint8Array<ArrayBuffer>) => Step;

/** The steps that quantize one set. */
type SetSteps = (values: Float32Array, codes: Uint8Array<ArrayBuffer>, quantize: QuantizeSet) => Iterable<Step>;

/**
 * Quantizes scales in sets of `scalesOfSet`, zeros all together, and widens them again, in place. Zeros that are codes stay so.
 *
 * The reference does it without its solver: `Quantizer.quantize(scale, nbits=8, group_size=128, axis=0, optimize=False)` and
 * `Quantizer.quantize(zero, nbits=8, channel_wise=False, optimize=False)`.
 *
 * @param bytes Gives memory for codes.
 * @param ofSet For what is one set. Absent: one step.
 */
export function metaJob(
  scale: Float32Array<ArrayBuffer>,
  zero: Float32Array<ArrayBuffer>,
  { referenceGuards, zeroPoint }: Pick<ResolvedQuantConfig, 'referenceGuards' | 'zeroPoint'>,
  threads: number,
  bytes: (kind: 'scale' | 'zero', count: number) => Uint8Array<ArrayBuffer> = (_, length) => new Uint8Array(length),
  ofSet?: SetSteps,
): MetaJob {
  const config = referenceGuards ? GUARDED : PLAIN;
  const count = scale.length;
  const make = (values: Float32Array, codes: Uint8Array<ArrayBuffer>, sets: number) => {
    const made: MetaCodes = { codes, scale: new Float32Array(sets), zero: new Float32Array(sets) };
    const { rows, cols, axis } = gridOf(made);
    const quantize: QuantizeSet = (weights, packed) => ({
      operation: 'quantize',
      args: groupedQuantizeArgs({
        rows,
        cols: axis === 1 ? weights.length : cols,
        axis,
        format: BYTES,
        config,
        weights,
        dtype: 'float32',
        metaDtype: 'float32',
        packed,
        scale: made.scale,
        zero: made.zero,
        stats: new Float64Array(5),
        threads: axis === 1 ? 1 : threads, // one set is one thread's work
      }),
    });
    const steps = axis === 1 && ofSet ? ofSet(values, codes, quantize) : [quantize(values, codes)];
    return { bytes: made, steps, widening: [widenStep(made, values, threads)] };
  };
  const scales = make(scale, bytes('scale', count), count / scalesOfSet(count));
  const codes = bytes('zero', count);
  if (zeroPoint !== 'float') codes.set(zero); // they are codes, and stay what they are
  const zeros =
    zeroPoint === 'float'
      ? make(zero, codes, 1)
      : { bytes: { codes, scale: Float32Array.of(1), zero: new Float32Array(1) }, steps: [], widening: [] };
  function* steps() {
    yield* scales.steps;
    yield* zeros.steps;
  }
  const widening = [...scales.widening, ...zeros.widening];
  return { meta: { scale: scales.bytes, zero: zeros.bytes }, steps: steps(), widening };
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
