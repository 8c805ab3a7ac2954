import type { DequantizeArgs } from '../../../binding.js';
import { narrow, roundTo } from './lanes.js';
import { readCodes } from './packing.js';
import type { Units } from './slices.js';

const f = Math.fround;

/** The twin of native/core/dequantize.cc. */
export function* dequantize(args: DequantizeArgs): Units {
  const { rows, cols, step, axis, dtype } = args;
  const codes = new Uint8Array(cols);
  const floats = new Float32Array(cols);
  for (let row = 0; row < rows; row++) {
    readCodes(args.packed, args.format, cols, step, row, 0, cols, codes, 0);
    if (args.roundEach && dtype !== 0) {
      for (let c = 0; c < cols; c++) {
        const group = axis === 1 ? row : c;
        const offset = roundTo(dtype, f(roundTo(dtype, codes[c]!) - roundTo(dtype, args.zero[group]!)));
        floats[c] = roundTo(dtype, f(offset * roundTo(dtype, args.scale[group]!)));
      }
    } else if (axis === 1) {
      const scale = args.scale[row]!;
      const zero = args.zero[row]!;
      for (let c = 0; c < cols; c++) floats[c] = f(f(codes[c]! - zero) * scale);
    } else {
      for (let c = 0; c < cols; c++) floats[c] = f(f(codes[c]! - args.zero[c]!) * args.scale[c]!);
    }
    narrow(floats, cols, dtype, args.out, row * cols);
    if (row % 16 === 15) yield;
  }
}
