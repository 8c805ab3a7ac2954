import { describe, expect, it } from 'vitest';
import { resolveQuantConfig } from '../lib/matrix/options.js';
import { HqqError, show } from '../lib/messages/errors.js';
import { plain } from '../lib/messages/text.js';

// What a message repeats of a caller's values, which may come from a file: short, on one line, harmless to a terminal.

describe('show', () => {
  it.each([
    ['\u0007\u202e', '"\\u0007\\u202e"'],
    ['x'.repeat(5000), `"${'x'.repeat(77)}..."`],
    [Symbol('\u001b[2J'), 'Symbol(\\u001b[2J)'],
    [() => 'a long text', 'a function'],
    [{ constructor: { name: '\u0007' } }, 'an object of \\u0007'],
    [{ constructor: { name: {} } }, 'an object of no class'],
    [{ constructor: 'x'.repeat(5000) }, 'an object of no class'],
    [Object.create(null), 'an object of no class'],
    [Array(100).fill(Array(100).fill(1)), `[${Array(8).fill('a list of 100').join(', ')}, ...]`],
    [10n ** 200n, `1${'0'.repeat(76)}...`],
    [new Float32Array(3), 'Float32Array(3)'],
    [new Date(NaN), 'an object of Date'],
    [[1, 'a', null], '[1, "a", null]'],
  ])('%#', (value, shown) => {
    expect(show(value)).toBe(shown);
  });
});

it.each(['\u0007', '\u202e', 'x'.repeat(100_000), '"\n'])('an unknown option is named without harm: %#', (name) => {
  let error: unknown;
  try {
    resolveQuantConfig({ [name]: 1 } as never);
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(HqqError);
  const { message } = error as HqqError;
  expect(message).toBe(plain(message));
  expect(message.length).toBeLessThan(400);
});

it('an error as JSON says what it says to people', () => {
  const error = new HqqError('ERR_IO', 'Cannot read x.', { cause: new Error('of the system') });
  expect(JSON.parse(JSON.stringify({ error }))).toEqual({
    error: { name: 'HqqError', code: 'ERR_IO', message: 'Cannot read x.' },
  });
  expect(Object.keys(error).sort()).toEqual(['code', 'name']);
});
