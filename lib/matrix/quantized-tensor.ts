import { INSPECT } from '../messages/objects.js';
import { formatBytes, formatPercent } from '../messages/units.js';
import type { QuantizedTensor } from './weight.js';

/** The tensor of these fields: frozen, and short where `console.log` shows it. Copies (spread, structuredClone) are tensors, too. */
export function quantizedTensor(fields: QuantizedTensor): QuantizedTensor {
  return Object.freeze(Object.defineProperty({ ...fields }, INSPECT, { value: inspect }));
}

function inspect(this: QuantizedTensor): string {
  const { shape, nbits, groupSize, axis, packing, packed, scale, zero, stats, adapted } = this;
  const parts = [
    shape.join(' x '),
    `${nbits}-bit`,
    `group ${groupSize}`,
    `axis ${axis}`,
    `${packing} ${formatBytes(packed.byteLength)}`,
    `scale and zero ${formatBytes(scale.byteLength + zero.byteLength)}`,
    // What was read from a file does not know.
    ...(Number.isNaN(stats.relativeError) ? [] : [`error ${formatPercent(stats.relativeError)}`]),
    ...(adapted === undefined ? [] : [`adapted (${adapted})`]),
  ];
  return `QuantizedTensor { ${parts.join(', ')} }`;
}
