import { DEFAULT_ALIGNMENT, type GgufHeader, type Pair } from '../header.js';
import { encodePair, type WrittenValue } from '../values.js';

/** Key-value pairs of a file that is made from nothing, as its header would have them. */
export function headerOf(
  values: ReadonlyMap<string, WrittenValue>,
): Pick<GgufHeader, 'pairs' | 'pairBytes' | 'alignment'> {
  const pairs = new Map<string, Pair>();
  const parts: Uint8Array[] = [];
  let begin = 0;
  for (const [key, value] of values) {
    const bytes = encodePair(key, value);
    const name = 8 + Buffer.byteLength(key);
    const type = Buffer.from(bytes.buffer, bytes.byteOffset).readUInt32LE(name);
    pairs.set(key, { type, begin, value: begin + name + 4, end: begin + bytes.byteLength });
    parts.push(bytes);
    begin += bytes.byteLength;
  }
  return { pairs, pairBytes: Buffer.concat(parts), alignment: DEFAULT_ALIGNMENT };
}
