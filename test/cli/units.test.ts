import { describe, expect, test } from 'vitest';
import { families } from '../../lib/cli/show/families.js';
import {
  formatBytes,
  formatCount,
  formatLarge,
  formatNumber,
  formatPercent,
  formatSeconds,
  formatWait,
} from '../../lib/messages/units.js';

describe('numbers for people', () => {
  test.each([
    [formatCount(0), '0'],
    [formatCount(1234567), '1,234,567'],
    [formatNumber(4.5), '4.50'],
    [formatNumber(0), '0'],
    [formatNumber(1234.6), '1,235'],
    [formatNumber(0.00001234), '1.23e-5'],
    [formatNumber(Number.POSITIVE_INFINITY), 'Infinity'],
    [formatPercent(0.0853), '8.53 %'],
    [formatBytes(999), '999 B'],
    [formatBytes(999.6e3), '1.00 MB'],
    [formatBytes(999_400), '999 kB'],
    [formatBytes(1.5e9), '1.50 GB'],
    [formatLarge(612e6), '612 M'],
    [formatLarge(12), '12'],
    [formatSeconds(0.0000004), '0 µs'],
    [formatSeconds(0.00123), '1.23 ms'],
    [formatSeconds(0.9999), '1.00 s'],
    [formatSeconds(59.99), '1 min 0 s'],
    [formatWait(3599.5), '1 h 0 min'],
    [formatWait(192), '3 min 12 s'],
    [formatWait(7260), '2 h 1 min'],
  ])('%s', (got, expected) => {
    expect(got).toBe(expected);
  });
});

describe('families', () => {
  const names = (list: readonly string[]) =>
    families(
      list.map((name) => ({ name })),
      () => '',
    ).map(({ name, members }) => `${name} ${members.length}`);

  test('join what differs in numbers between dots', () => {
    expect(names(['h.0.mlp', 'h.0.attn', 'h.11.mlp', 'h.11.attn'])).toEqual(['h.*.mlp 2', 'h.*.attn 2']);
    expect(names(['experts.0.w1', 'experts.1.w1', 'w1', 'w2'])).toEqual(['experts.*.w1 2', 'w1 1', 'w2 1']);
    expect(names(['h.0.mlp'])).toEqual(['h.0.mlp 1']);
  });

  test('keep apart what is not alike', () => {
    const tensors = [
      { name: 'h.0.w', bits: 4 },
      { name: 'h.1.w', bits: 8 },
      { name: 'h.2.w', bits: 4 },
    ];
    const found = families(tensors, ({ bits }) => String(bits));
    expect(found.map(({ name, members }) => [name, members.length])).toEqual([
      ['h.*.w', 2],
      ['h.1.w', 1],
    ]);
  });
});
