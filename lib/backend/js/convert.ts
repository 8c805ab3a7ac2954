import type { ConvertArgs } from '../../../binding.js';
import { narrow, widen } from './lanes.js';
import type { Units } from './slices.js';

/** Elements after which the event loop may have its turn. */
const TURN_ELEMENTS = 8192;

/** The twin of native/core/convert.cc. */
export function* convert({ from, fromDtype, to, toDtype }: ConvertArgs): Units {
  const floats = new Float32Array(Math.min(from.length, TURN_ELEMENTS));
  for (let first = 0; first < from.length; first += floats.length) {
    const count = Math.min(floats.length, from.length - first);
    if (fromDtype === toDtype) to.set(from.subarray(first, first + count), first);
    else if (toDtype === 0) widen(from, fromDtype, first, count, to as Float32Array, first);
    else if (fromDtype === 0) narrow((from as Float32Array).subarray(first), count, toDtype, to, first);
    else {
      widen(from, fromDtype, first, count, floats);
      narrow(floats, count, toDtype, to, first);
    }
    yield;
  }
}
