import { describe, expect, it } from 'vitest';
import { MAX_JSON_DEPTH, MAX_JSON_VALUES, parseJson } from '../../lib/files/json.js';
import { expectError, randomOf, SEED } from './helpers.js';

const parse = (text: string | Uint8Array, allowNonFinite = false) =>
  parseJson(typeof text === 'string' ? Buffer.from(text) : text, {
    file: 'm.safetensors',
    what: 'header',
    allowNonFinite,
  });

describe('parseJson', () => {
  it.each([
    '{}',
    '[]',
    ' { } ',
    '[1,2,3]',
    '{"a":[{"b":null},true,false]}',
    '"x"',
    '-0',
    '0',
    '-1.5e-7',
    '1E+3',
    '123456789012345678901234567890',
    '"\\u00e9\\ud83d\\ude00\\n\\t\\"\\\\\\/\\b\\f\\r"',
    '"é😀\u2028"',
    '"\\u0000"',
    '\r\n\t[ ]\n',
    '{"":1,"1":2,"constructor":3,"toString":4}',
    '"\x7f"',
  ])('agrees with JSON.parse on %s', (text) => expect(parse(text)).toEqual(JSON.parse(text)));

  it('keeps -0 and reads __proto__ as a key like others', () => {
    expect(Object.is(parse('-0'), -0)).toBe(true);
    const value = parse('{"__proto__":{"polluted":1},"a":2}') as Record<string, unknown>;
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
    expect(Object.keys(value)).toEqual(['__proto__', 'a']);
    expect((value as { polluted?: number }).polluted).toBeUndefined();
  });

  it.each([
    ['', /expected a value, got the end of the text \(byte 0\)/],
    ['{', /key in double quotes, got the end/],
    ['[', /a value, got the end/],
    ['{"a"}', /expected ":", got "}" \(byte 4\)/],
    ['{"a":1,}', /key in double quotes, got "}"/],
    ['[1,]', /a value, got "]" \(byte 3\)/],
    ['[1 2]', /expected "," or "]", got "2"/],
    ['{"a":1 "b":2}', /expected "," or "}", got """/],
    ["{'a':1}", /double quotes, got "'"/],
    ['{"a":1,"a":2}', /every key once, got "a" again \(byte 7\)/],
    ['{"__proto__":1,"__proto__":2}', /"__proto__" again/],
    ['{"a":1,"\\u0061":2}', /every key once/],
    ['{}x', /the end of the text, got "x"/],
    ['{}\0', /got byte 0 \(byte 2\)/],
    ['01', /leading zeros/],
    ['-01', /leading zeros/],
    ['1.', /a digit/],
    ['.5', /a value/],
    ['+1', /a value, got "\+"/],
    ['-', /a digit/],
    ['1e', /a digit/],
    ['1e999', /below 1.8e308/],
    ['tru', /a value/],
    ['nul', /a value/],
    ['NaN', /a value, got "N"/],
    ['Infinity', /a value/],
    ['-Infinity', /a digit/],
    ['"a', /the end of a string/],
    ['"a\\', /the end of a string/],
    ['"a\\"', /the end of a string/],
    ['"\n"', /control characters in strings to be escaped, got byte 10/],
    ['"\\x41"', /an escape that JSON knows/],
    ['"\\u12g4"', /four hexadecimal digits/],
    ['"\\u12"', /four hexadecimal digits/],
    ['"\\ud800"', /surrogates in pairs/],
    ['"\\ud800\\u0041"', /surrogates in pairs/],
    ['"\\udc00"', /surrogates in pairs/],
    ['\ufeff{}', /a value, got byte 239/],
    ['// c\n{}', /a value, got "\/"/],
  ])('refuses %j', (text, pattern) => expectError(() => parse(text), 'ERR_CHECKPOINT_FORMAT', pattern));

  it('says file, part and byte, and escapes hostile keys', async () => {
    await expectError(
      () => parse('[1,2'),
      'ERR_CHECKPOINT_FORMAT',
      /^m\.safetensors: the header is not valid JSON: .*\(byte 4\)\./,
    );
    await expectError(
      () => parse('{"\x9b\u202e\\u001b[2J":1,"\x9b\u202e\\u001b[2J":1}'),
      'ERR_CHECKPOINT_FORMAT',
      /\\u009b\\u202e\\u001b/,
    );
    await expectError(
      () => parseJson(Buffer.from('x'), { file: 'a\nb', what: 'index', offset: 8 }),
      'ERR_CHECKPOINT_FORMAT',
      /^a\\u000ab: .*byte 8/,
    );
  });

  it('refuses bytes that are not UTF-8', async () => {
    for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xe2, 0x82]]) {
      await expectError(
        () => parse(Buffer.from([0x22, ...bytes, 0x22])),
        'ERR_CHECKPOINT_FORMAT',
        /expected UTF-8.*byte 1\)/,
      );
      await expectError(
        () => parse(Buffer.from([0x22, 0x5c, 0x6e, ...bytes, 0x22])),
        'ERR_CHECKPOINT_FORMAT',
        /expected UTF-8/,
      );
    }
  });

  it('reads what Python writes for numbers that JSON does not have, where allowed', () => {
    expect(parse('[NaN, Infinity, -Infinity, 1e999]', true)).toEqual([Number.NaN, Infinity, -Infinity, Infinity]);
    expect(() => parse('Nan', true)).toThrow(/a value/);
    expect(() => parse('-NaN', true)).toThrow();
  });

  it('bounds nesting, values, time and memory', async () => {
    const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
    expect(() => parse(nested(MAX_JSON_DEPTH))).not.toThrow();
    await expectError(() => parse(nested(MAX_JSON_DEPTH + 1)), 'ERR_CHECKPOINT_FORMAT', /at most 64 levels/);
    await expectError(() => parse('['.repeat(1_000_000)), 'ERR_CHECKPOINT_FORMAT', /at most 64 levels/);
    await expectError(() => parse('{"a":'.repeat(1_000_000)), 'ERR_CHECKPOINT_FORMAT', /at most 64 levels/);
    await expectError(
      () => parse(`[${'0,'.repeat(MAX_JSON_VALUES)}0]`),
      'ERR_CHECKPOINT_FORMAT',
      /at most 4000000 values/,
    );
  });

  it('reads 20 MB in seconds', () => {
    const entry = (i: number) =>
      `"model.layers.${i}.mlp.down_proj.weight":{"dtype":"BF16","shape":[4096,11008],"data_offsets":[${i},${i + 1}]}`;
    const text = Buffer.from(`{${Array.from({ length: 200_000 }, (_, i) => entry(i)).join(',')}}`);
    const start = process.cpuUsage(); // of this process: others may keep it waiting
    expect(Object.keys(parse(text) as object)).toHaveLength(200_000);
    expect(process.cpuUsage(start).user / 1e3).toBeLessThan(10_000); // about 1 s
  });

  it(`agrees with JSON.parse on random values (HQQ_TEST_SEED=${SEED})`, () => {
    const random = randomOf(SEED);
    const text = () =>
      String.fromCodePoint(
        ...Array.from(
          { length: random(6) },
          () => [34, 92, 0, 31, 65, 233, 0x1f600, 0xfffd, 0x7f][random(9)] as number,
        ),
      );
    const value = (depth: number): unknown => {
      const kind = random(depth > 5 ? 5 : 7);
      if (kind === 0) return null;
      if (kind === 1) return random(2) === 1;
      if (kind === 2) return random(1e9) - 5e8;
      if (kind === 3) return (random(1e9) - 5e8) * 10 ** (random(600) - 300);
      if (kind === 4) return text();
      if (kind === 5) return Array.from({ length: random(5) }, () => value(depth + 1));
      return Object.fromEntries(Array.from({ length: random(5) }, (_, i) => [`${text()}${i}`, value(depth + 1)]));
    };
    for (let i = 0; i < 2000; i++) {
      const written = JSON.stringify(value(0), null, random(3));
      expect(parse(written)).toEqual(JSON.parse(written));
      // One byte changed: both accept and agree, or ours refuses. Never a crash of another kind.
      const bytes = Buffer.from(written);
      bytes[random(bytes.length)] = random(256);
      try {
        const mine = parse(bytes);
        expect(mine).toEqual(JSON.parse(bytes.toString()));
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_FORMAT' });
      }
    }
  });
});
