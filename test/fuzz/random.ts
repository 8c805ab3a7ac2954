import { randomOf } from '../support/random.mjs';

/** Random numbers of one input: its seed and number repeat it, whatever came before. */
export class Random {
  readonly #random: () => number;

  constructor(seed: number, input: number) {
    this.#random = randomOf(Math.imul(seed, 0x9e3779b1) ^ Math.imul(input + 1, 0x85ebca6b));
    this.below(2);
  }

  /** An integer from 0 to `count` - 1. */
  below(count: number): number {
    return Math.floor(this.#random() * count);
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

/** Numbers near what a check may get wrong, as JSON writes them. */
export const HOSTILE_NUMBERS = [
  '0',
  '-0',
  '-1',
  '1',
  '0.5',
  '1e3',
  '1E400',
  '-1e400',
  '01',
  '1.',
  '4294967295',
  '4294967296',
  '2147483648',
  '9007199254740991',
  '9007199254740992',
  '18446744073709551615',
  '18446744073709551616',
  '1e-400',
  '16777216',
  '16777217',
  '65536',
  '1e15',
] as const;

const PIECES = [
  '{',
  '}',
  '[',
  ']',
  '"',
  ',',
  ':',
  '\\',
  '\\u0000',
  '\\ud800',
  '\\ud83d\\ude00',
  '\u0000',
  '\ufeff',
  '\u2028',
  'null',
  'true',
  'NaN',
  '-Infinity',
  '"__proto__"',
  '"__metadata__"',
  '"constructor"',
  '[[[[[[[[',
  '{"":',
  '/**/',
  '\n',
  ' ',
  'é',
  '\x7f',
  '\x80',
] as const;

/** `bytes`, damaged in one to four places. */
export function damage(random: Random, bytes: Buffer): Buffer {
  for (let times = 1 + random.below(4); times > 0; times--) bytes = damageOnce(random, bytes);
  return bytes;
}

function damageOnce(random: Random, bytes: Buffer): Buffer {
  const at = random.below(bytes.length + 1);
  const end = Math.min(bytes.length, at + 1 + random.below(random.chance(20) ? 64 : 4));
  const put = (piece: Uint8Array, upTo: number) => Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(upTo)]);
  switch (random.below(8)) {
    case 0: {
      const copy = Buffer.from(bytes);
      if (at < copy.length) copy[at]! ^= 1 << random.below(8);
      return copy;
    }
    case 1:
      return put(Buffer.of(random.below(256)), end);
    case 2:
      return put(Buffer.alloc(0), end); // taken out
    case 3:
      return put(bytes.subarray(at, end), at); // twice
    case 4:
      return put(Buffer.from(random.pick(PIECES)), random.chance(50) ? at : end);
    case 5:
      return bytes.subarray(0, random.chance(50) ? at : bytes.length - Math.min(bytes.length, random.below(8)));
    case 6: {
      const from = random.below(bytes.length + 1);
      return put(bytes.subarray(from, Math.min(bytes.length, from + random.below(48))), at); // a piece from elsewhere
    }
    default: {
      // A number becomes another one.
      const text = bytes.toString('latin1');
      const numbers = [...text.matchAll(/\d+/g)];
      if (numbers.length === 0) return put(Buffer.from(random.pick(HOSTILE_NUMBERS)), end);
      const { index, 0: number } = random.pick(numbers);
      const other = random.chance(50) ? random.pick(HOSTILE_NUMBERS) : String(Number(number) + random.below(5) - 2);
      return Buffer.from(text.slice(0, index) + other + text.slice(index + number.length), 'latin1');
    }
  }
}
