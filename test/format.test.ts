import { describe, expect, test } from 'vitest';
import { availableBackends, openBackend } from '../lib/backend/index.js';
import { packArgs } from '../lib/compute/arguments.js';
import { pack } from '../lib/compute/quantize.js';
import { FORMATS, formatFor, holdsRows, packedRows } from '../lib/matrix/format.js';

/** docs/format.md, "A worked example". */
describe.each(availableBackends())('the worked example of docs/format.md: %s', (name) => {
  test('packs as the page says', () => {
    const codes = Uint8Array.from({ length: 32 }, (_, i) => (i < 16 ? i : 31 - i));
    const packed = new Uint8Array(16);
    openBackend(name).run('pack', packArgs({ rows: 4, cols: 8, format: formatFor(4), threads: 1, codes, packed }));
    expect(Buffer.from(packed).toString('hex')).toBe('0f1e2d3c4b5a69788796a5b4c3d2e1f0');
  });
});

describe('formats', () => {
  test.each([
    [8, '8bit_u8'],
    [6, '8bit_u8'],
    [5, '8bit_u8'],
    [4, '4bit_u8'],
    [3, '3bit_32'],
    [2, '2bit_u8'],
    [1.58, '2bit_u8'],
    [1, '1bit_u8'],
  ])('%s bits are stored as %s', (nbits, packing) => {
    expect(formatFor(nbits).packing).toBe(packing);
  });

  test('a word has as many fields as codes fit into it', () => {
    for (const format of FORMATS) expect(format.fields).toBe(Math.floor((8 * format.wordBytes) / format.codeBits));
  });

  test('only 3 bits may be padded', () => {
    expect(holdsRows(formatFor(4), 13)).toBe(false);
    expect(holdsRows(formatFor(3), 13)).toBe(true);
    expect(packedRows(formatFor(3), 13)).toBe(2);
  });
});

describe('pack', () => {
  test('names the first code that is too large, wherever it stands', () => {
    for (const offset of [0, 1, 2, 3]) {
      for (let at = 0; at < 12; at++) {
        const codes = new Uint8Array(16).subarray(offset, offset + 12).fill(15);
        expect(() => pack(codes, [2, 6], '4bit_u8')).not.toThrow();
        codes[at] = 16;
        expect(() => pack(codes, [2, 6], '4bit_u8')).toThrow(`at most 15, got 16 at index ${at}`);
      }
    }
  });
});
