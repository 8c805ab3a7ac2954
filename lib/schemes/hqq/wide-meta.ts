import { checkArray, checkObject } from '../../matrix/validate.js';
import type { MetaCodes, QuantizedTensorLike } from '../../matrix/weight.js';
import { HqqError } from '../../messages/errors.js';

// Scales and zeros that were quantized to bytes, as numbers.

/** Writes the numbers that codes stand for, of which the first is that of group `first`, to `into[at]` on: what `dequantize` gives. */
export function widenPart(
  codes: Uint8Array,
  first: number,
  { scale, zero }: Pick<MetaCodes, 'scale' | 'zero'>,
  into: Float32Array,
  at: number,
): void {
  const sets = scale.length;
  let set = first % sets;
  for (let i = 0; i < codes.length; i++) {
    into[at + i] = Math.fround(codes[i]! - zero[set]!) * scale[set]!;
    if (++set === sets) set = 0;
  }
}

/**
 * Checks that bytes of scales and zeros, where there are any, stand for the scales and zeros of a tensor that was checked.
 *
 * @throws {HqqError} `ERR_INVALID_ARGUMENT`
 */
export function checkMeta(q: QuantizedTensorLike): void {
  if (q.meta === undefined) return;
  checkObject(q.meta, 'meta');
  for (const kind of ['scale', 'zero'] as const) {
    const stored = q.meta[kind];
    if (stored === undefined) continue;
    const name = `meta.${kind}`;
    checkObject(stored, name);
    const { codes, scale, zero } = stored;
    const groups = q[kind].length;
    checkArray(codes, `${name}.codes`, 'Uint8Array', groups, `for ${groups} groups`);
    checkArray(scale, `${name}.scale`, 'Float32Array', scale?.length, `for ${groups} groups`);
    checkArray(zero, `${name}.zero`, 'Float32Array', scale.length, 'as many as its scales');
    if (scale.length === 0 || groups % scale.length !== 0) {
      throw invalid(`Expected ${name}.scale to have a number for each set of ${groups} groups, got ${scale.length}.`);
    }
    const wide = new Float32Array(groups);
    widenPart(codes, 0, stored, wide, 0);
    const bad = wide.findIndex((value, group) => value !== q[kind][group]);
    if (bad >= 0) {
      throw invalid(
        `Expected ${kind} to be what ${name} stands for, ${wide[bad]} at group ${bad}, got ${q[kind][bad]}.`,
      );
    }
  }
}

function invalid(message: string): HqqError {
  return new HqqError('ERR_INVALID_ARGUMENT', message);
}
