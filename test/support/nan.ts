import type { DTypeId } from '../../binding.js';

/**
 * Gives all NaNs of an output one pattern, and returns it. Bits of a NaN that an operation makes are the machine's own (x86
 * sets the sign, ARM does not), and the only ones in which backends may differ.
 *
 * @param dtype Of 16-bit outputs.
 */
export function unifyNans(view: ArrayBufferView, dtype: DTypeId = 0): ArrayBufferView {
  if (view instanceof Float32Array || view instanceof Float64Array) {
    const bits = new Uint32Array(view.buffer, view.byteOffset, view.byteLength / 4);
    // Written as bits: an engine may choose which NaN it stores.
    view.forEach((x, i) => {
      if (!Number.isNaN(x)) return;
      if (view instanceof Float32Array) bits[i] = 0x7fc00000;
      else bits.set([0, 0x7ff80000], 2 * i);
    });
  } else if (view instanceof Uint16Array) {
    const infinity = dtype === 1 ? 0x7c00 : 0x7f80;
    view.forEach((bits, i) => {
      if ((bits & 0x7fff) > infinity) view[i] = infinity | 1;
    });
  }
  return view;
}
