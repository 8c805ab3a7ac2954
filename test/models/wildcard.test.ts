import { describe, expect, test } from 'vitest';
import { compileWildcard } from '../../lib/models/select/wildcard.js';

describe('globs over tensor names', () => {
  test.each([
    ['*', 'a.b/c', true],
    ['*.down_proj', 'model.layers.3.mlp.down_proj', true],
    ['*.down_proj', 'model.layers.3.mlp.down_proj.weight', false],
    ['model.layers.?.mlp.*', 'model.layers.3.mlp.up_proj', true],
    ['model.layers.?.mlp.*', 'model.layers.13.mlp.up_proj', false],
    ['model.layers.1[0-9].*', 'model.layers.13.mlp.up_proj', true],
    ['model.layers.1[!0-9].*', 'model.layers.13.mlp.up_proj', false],
    ['*.{gate,up}_proj', 'x.up_proj', true],
    ['*.{gate,up}_proj', 'x.down_proj', false],
    ['{a,b{c,d}}*', 'bdx', true],
    ['**a**b', 'xaxxb', true],
    ['a*b*c', 'abcbc', true],
    ['a*b*c', 'abcb', false],
    ['a.b', 'axb', false],
    ['(a|b)+', 'a', false],
    ['x', '', false],
  ])('%s against %s: %s', (glob, name, expected) => {
    expect(compileWildcard(glob)(name)).toBe(expected);
  });

  test('take no longer for many stars against a hostile name', () => {
    const started = performance.now();
    expect(compileWildcard(`${'*x'.repeat(50)}*y`)('x'.repeat(100_000))).toBe(false);
    expect(performance.now() - started).toBeLessThan(2000);
  });

  test.each(['', '[abc', `{${'a,'.repeat(300)}b}`])('%s is none', (glob) => {
    expect(() => compileWildcard(glob)).toThrow(/Expected a glob/);
  });
});
