import { describe, expect, it } from 'vitest';
import {
  headerLength,
  MAX_HEADER_BYTES,
  MAX_METADATA_ENTRIES,
  MAX_TENSORS,
  parseHeader,
  tensorBytes,
} from '../../lib/containers/safetensors/header.js';
import { planLayout } from '../../lib/containers/safetensors/layout.js';
import { bitsOfType, type StoredType, storedType } from '../../lib/containers/stored-types.js';
import { expectError, fileBytes, randomOf, SEED } from './helpers.js';

const FORMAT = 'ERR_CHECKPOINT_FORMAT';
const parse = (json: unknown, data = 0) => {
  const text = Buffer.from(typeof json === 'string' ? json : JSON.stringify(json));
  return parseHeader(text, { file: 'm.safetensors', fileSize: 8 + text.byteLength + data });
};
const u8 = (begin: number, end: number, shape: unknown = [end - begin]) => ({
  dtype: 'U8',
  shape,
  data_offsets: [begin, end],
});

describe('headerLength', () => {
  const source = (fileSize: number) => ({ file: 'm.safetensors', fileSize });
  it.each([
    [Buffer.alloc(0), 0, /expected at least 8 bytes, got 0\. The file is truncated/],
    [Buffer.alloc(7), 7, /expected at least 8 bytes, got 7/],
    [fileBytes('{}', 0, 3n), 10, /claims 3 bytes, but the file has 10\. The file is truncated or not/],
    [fileBytes('{}', 0, 2n ** 53n), 10, /claims 9007199254740992 bytes/],
    [fileBytes('{}', 0, 2n ** 64n - 1n), 10, /claims 18446744073709551615 bytes/],
    [fileBytes('{}', 0, 2n ** 63n), 10, /claims 9223372036854775808 bytes/],
    [fileBytes('{}', 0, BigInt(MAX_HEADER_BYTES) + 1n), 1e12, /claims 33554433 bytes; at most 33554432 are read/],
    [Buffer.from('version https://git-lfs'), 130, /Git LFS pointer/],
    [Buffer.from('GGUF\x03\0\0\0'), 1e6, /GGUF/],
    [Buffer.from('PK\x03\x04\x14\0\x08\x08'), 1e6, /PyTorch or zip/],
    [Buffer.from('<!DOCTYPE html>'), 1e6, /web page/],
  ])('refuses %#', (bytes, size, pattern) => expectError(() => headerLength(bytes, source(size)), FORMAT, pattern));

  it('returns the length', () => expect(headerLength(fileBytes('{}'), source(10))).toBe(2));
});

describe('parseHeader', () => {
  it('reads tensors in the order of their bytes, and metadata', () => {
    const { tensors, metadata } = parse(
      {
        b: u8(4, 6),
        __metadata__: { format: 'pt', __proto__x: '' },
        empty: { dtype: 'F32', shape: [0, 5], data_offsets: [4, 4] },
        a: { dtype: 'BF16', shape: [1, 2], data_offsets: [0, 4] },
        scalar: u8(6, 7, []),
      },
      7,
    );
    expect([...tensors.keys()]).toEqual(['a', 'empty', 'b', 'scalar']);
    const start = tensors.get('a')?.begin ?? 0;
    expect(tensors.get('scalar')).toEqual({
      ...{ name: 'scalar', type: storedType('U8'), shape: [], file: 'm.safetensors' },
      ...{ begin: start + 6, end: start + 7 },
    });
    expect(metadata.get('format')).toBe('pt');
    expect(parse('{}').tensors.size).toBe(0);
    expect(parse('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}  ', 1).tensors.has('__proto__')).toBe(
      true,
    );
  });

  it('knows every dtype of the format, also those of less than a byte', () => {
    expect(parse({ a: { dtype: 'F4', shape: [3, 2], data_offsets: [0, 3] } }, 3).tensors.size).toBe(1);
    expect(parse({ a: { dtype: 'F6_E2M3', shape: [4], data_offsets: [0, 3] } }, 3).tensors.size).toBe(1);
    const names = ['C64', 'F64', 'BOOL', 'F8_E8M0', 'F8_E4M3FNUZ', 'F6_E3M2', 'F4'];
    expect(names.map((name) => bitsOfType(storedType(name)))).toEqual([64, 64, 8, 8, 8, 6, 4]);
    for (const name of ['x', 'constructor'])
      expect(() => storedType(name)).toThrow(/Expected the name of a stored type/);
  });

  const twice = '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}';
  it.each<[unknown, number, RegExp]>([
    ['', 0, /begin with "\{", got nothing/],
    [' {}', 0, /begin with "\{", got byte 32/],
    ['[]', 0, /begin with "\{"/],
    ['{} x', 0, /not valid JSON: expected the end of the text, got "x" \(byte 11\)/],
    [`{${twice},${twice}}`, 1, /every tensor once, got "a" again/],
    ['{"":{}}', 0, /every tensor to have a name/],
    ['{"a":[]}', 0, /not described by an object/],
    ['{"a":null}', 0, /not described by an object/],
    ['{"__metadata__":{},"__metadata__":{}}', 0, /every key once/],
    ['{"__metadata__":[]}', 0, /to be an object of strings/],
    [{ __metadata__: { format: 1 } }, 0, /hold strings, got something else for "format"/],
    [{ __metadata__: { format: null } }, 0, /hold strings/],
    ['{"__metadata__":{"a":"","a":""}}', 0, /every key once/],
    [{ a: { ...u8(0, 1), extra: 1 } }, 1, /tensor "a" has the unexpected key "extra"/],
    [{ a: { shape: [1], data_offsets: [0, 1] } }, 1, /has no dtype/],
    [{ a: { dtype: 'U8', data_offsets: [0, 1] } }, 1, /has no shape/],
    [{ a: { dtype: 'U8', shape: [1] } }, 1, /has no data_offsets/],
    [{ a: { dtype: 3, shape: [1], data_offsets: [0, 1] } }, 1, /dtype that is not a string/],
    [{ a: { dtype: 'Q4', shape: [1], data_offsets: [0, 1] } }, 1, /unknown dtype "Q4"\. Known ones: .*BF16/],
    ['{"a":{"dtype":"U8","dtype":"U8"}}', 1, /every key once, got "dtype"/],
    [{ a: u8(0, 1, 1) }, 1, /shape that is not an array/],
    [{ a: u8(0, 1, [-1]) }, 1, /shape whose number 1 is not an integer/],
    [{ a: u8(0, 1, [1.5]) }, 1, /not an integer/],
    ['{"a":{"shape":[1.0]}}', 1, /not an integer/],
    ['{"a":{"shape":[1e0]}}', 1, /not an integer/],
    ['{"a":{"shape":[9007199254740992]}}', 1, /not an integer/],
    ['{"a":{"shape":["1"]}}', 1, /not an integer/],
    [{ a: u8(0, 1, new Array(65).fill(1)) }, 1, /more than 64 numbers in its shape/],
    [{ a: u8(0, 8, [2 ** 32, 2 ** 32]) }, 8, /too large/],
    [{ a: u8(0, 0, [0, 2 ** 32, 2 ** 32]) }, 0, /too large/],
    [{ a: { dtype: 'F4', shape: [3], data_offsets: [0, 2] } }, 2, /not a whole number of bytes/],
    [{ a: { dtype: 'U8', shape: [1], data_offsets: [0] } }, 1, /has 1 data_offsets where 2/],
    [{ a: { dtype: 'U8', shape: [], data_offsets: [0, 1, 2] } }, 1, /more than 2 numbers/],
    [{ a: u8(1, 0, [1]) }, 1, /end \(0\) before they begin \(1\)/],
    [{ a: { dtype: 'U8', shape: [1], data_offsets: [-1, 0] } }, 1, /data_offsets whose number 1/],
    [
      { a: { dtype: 'F32', shape: [2], data_offsets: [0, 4] } },
      4,
      /takes 8 bytes as F32 \[2\], but its data_offsets span 4/,
    ],
    [{ a: u8(0, 4), b: u8(3, 5) }, 5, /"b" begins at byte \d+, inside tensor "a"/],
    [{ a: u8(0, 4), b: u8(0, 4) }, 4, /inside tensor/],
    [{ a: u8(0, 4), b: u8(5, 6) }, 6, /1 bytes from byte \d+, before tensor "b", belong to no tensor/],
    [{ a: u8(1, 2) }, 2, /belong to no tensor/],
    [{ a: u8(0, 4) }, 5, /the last tensor ends at byte \d+, but the file has \d+ bytes/],
    ['{}', 1, /allows nothing behind it/],
    [
      { a: u8(0, 4), 'lm_head.weight': u8(4, 8) },
      6,
      /^m\.safetensors: tensor "lm_head.weight" ends at byte \d+, past the end of the file \(\d+ bytes\)\. The file is truncated/,
    ],
    [{ a: u8(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, [0]) }, 0, /past the end/],
    [{ '\u0000\u001b]0;x\u0007\u202e': 1 }, 0, /"\\u0000\\u001b\]0;x\\u0007\\u202e"/],
    [{ ['n'.repeat(1e6)]: 1 }, 0, /n{200}\.\.\."/],
  ])('refuses %#: %.80j', (json, data, pattern) => expectError(() => parse(json, data), FORMAT, pattern));

  it('bounds what metadata costs', async () => {
    const metadata = Object.fromEntries(Array.from({ length: MAX_METADATA_ENTRIES + 1 }, (_, i) => [`k${i}`, '']));
    await expectError(() => parse({ __metadata__: metadata }), FORMAT, /at most 65536 entries/);
  });

  it('bounds what tensors cost', async () => {
    const json = Object.fromEntries(Array.from({ length: MAX_TENSORS + 1 }, (_, i) => [i.toString(36), u8(0, 0, [0])]));
    await expectError(() => parse(json), FORMAT, /at most 262144 tensors\. Split/);
  });

  it('reads the largest header that is allowed in bounded time and memory', () => {
    const parts: string[] = [];
    for (let size = 2, i = 0; i < MAX_TENSORS; i++) {
      const part = `"${'layer.'.repeat(9)}${i.toString(36)}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`;
      if ((size += part.length + 1) > MAX_HEADER_BYTES) break;
      parts.push(part);
    }
    const text = Buffer.from(`{${parts.join(',')}}`);
    const count = parts.length;
    parts.length = 0;
    const start = performance.now();
    const before = process.memoryUsage().rss;
    const { tensors } = parseHeader(text, { file: 'm', fileSize: 8 + text.byteLength });
    expect(tensors.size).toBe(count);
    expect(process.memoryUsage().rss - before).toBeLessThan(250e6); // About 100 MB are kept; the rest is garbage to be.
    expect(performance.now() - start).toBeLessThan(15_000);
  });
});

describe('planLayout', () => {
  it('lays out as safetensors does and reads back', () => {
    const { header, entries, fileSize } = planLayout(
      [
        { name: 'z', type: storedType('U8'), shape: [3] },
        { name: 'b', type: storedType('F32'), shape: [2] },
        { name: 'a', type: storedType('BF16'), shape: [] },
        { name: '\u{1F600}', type: storedType('I64'), shape: [1] },
        { name: '\uFFFD', type: storedType('I64'), shape: [0] },
        { name: '__proto__', type: storedType('F16'), shape: [1] },
      ],
      { format: 'pt', __proto: 'x' },
      'm',
    );
    expect([...entries.keys()]).toEqual(['\uFFFD', '\u{1F600}', 'b', '__proto__', 'a', 'z']);
    expect(header.byteLength % 8).toBe(0);
    expect(headerLength(header, { file: 'm', fileSize })).toBe(header.byteLength - 8);
    const read = parseHeader(header.subarray(8), { file: 'm', fileSize });
    expect(read.tensors).toEqual(entries);
    expect([...read.metadata]).toEqual([
      ['format', 'pt'],
      ['__proto', 'x'],
    ]);
    expect(planLayout([], new Map([['__proto__', 'y']])).header.toString()).toContain(
      '{"__metadata__":{"__proto__":"y"}}',
    );
    expect(planLayout([]).fileSize).toBe(16);
  });

  it('refuses what could not be read again', async () => {
    const spec = { name: 'a', type: storedType('U8'), shape: [1] };
    const strange: StoredType = { name: 'Q4', blockElements: 2, blockBytes: 1 };
    await expectError(() => planLayout([spec, spec]), 'ERR_CHECKPOINT_CONTENT', /"a" twice/);
    for (const wrong of [
      { name: '' },
      { name: '__metadata__' },
      { name: '\ud800' },
      { type: strange },
      { shape: [-1] },
      { shape: [1.5] },
      { shape: [2 ** 50, 8] },
      { shape: new Array<number>(65).fill(1) },
      { type: storedType('F4'), shape: [1] },
    ]) {
      await expectError(
        () => planLayout([{ ...spec, ...wrong }]),
        'ERR_INVALID_ARGUMENT',
        /that a safetensors file can hold/,
      );
    }
    await expectError(() => planLayout([], { a: '\udc00' }), 'ERR_INVALID_ARGUMENT', /lone surrogate/);
    const many = Array.from({ length: MAX_TENSORS + 1 }, (_, i) => ({ ...spec, name: String(i) }));
    await expectError(() => planLayout(many), 'ERR_CHECKPOINT_CONTENT', /at most 262144 tensors .* Split the model/);
    await expectError(
      () => planLayout([{ ...spec, name: 'x'.repeat(MAX_HEADER_BYTES) }]),
      'ERR_CHECKPOINT_CONTENT',
      /Split the model/,
    );
  });

  it(`any plan reads back (HQQ_TEST_SEED=${SEED})`, () => {
    const random = randomOf(SEED);
    const dtypes = ['C64', 'F64', 'F32', 'BF16', 'I16', 'U8', 'BOOL', 'F8_E4M3', 'F4', 'F6_E3M2'];
    for (let round = 0; round < 300; round++) {
      const specs = Array.from({ length: random(20) }, (_, i) => {
        const type = storedType(dtypes[random(dtypes.length)]!);
        const shape = Array.from({ length: random(4) }, () => random(5));
        if (type.blockElements > 1) shape.push(4);
        return { name: `${String.fromCodePoint(1 + random(0xd7ff))}${i}`, type, shape };
      });
      const { header, entries, fileSize } = planLayout(specs, { format: 'pt' }, 'm');
      expect(parseHeader(header.subarray(8), { file: 'm', fileSize }).tensors).toEqual(entries);
      let position = header.byteLength;
      for (const { name, type, shape, begin, end } of entries.values()) {
        const bits = bitsOfType(type);
        expect([name, begin, begin % Math.max(1, Math.floor(bits / 8)), end - begin]).toEqual([
          name,
          position,
          0,
          tensorBytes(shape, bits),
        ]);
        position = end;
      }
      expect(position).toBe(fileSize);
      // A byte changed in the JSON: an error of this package or a header that still tiles the file.
      const hurt = Buffer.from(header);
      hurt[8 + random(header.byteLength - 8)] = random(256);
      try {
        parseHeader(hurt.subarray(8), { file: 'm', fileSize });
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_FORMAT' });
      }
    }
  });
});
