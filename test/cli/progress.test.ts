import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { withProgress } from '../../lib/cli/show/progress.js';
import { type Stand, words } from '../../lib/cli/show/stand.js';

describe('a stand in words', () => {
  const stand: Stand = { done: 250, total: 1000, unit: 'weights', step: [3, 12], name: 'x' };

  test('says share, count, rate and what is left', () => {
    expect(words(stand, 10)).toEqual({ percent: ' 25 %', step: ' 3/12', rate: '25 weights/s', left: '30 s left' });
    expect(words({ done: 5, total: 5 }, 10)).toEqual({ percent: '100 %', step: '', rate: '', left: '0 s left' });
  });

  test('guesses nothing from nothing', () => {
    expect(words({ ...stand, done: 0 }, 10)).toMatchObject({ percent: '  0 %', left: '' });
    expect(words(stand, 0.1)).toMatchObject({ left: '' });
    expect(words({ done: 0, total: 0 }, 10)).toMatchObject({ percent: '100 %', left: '' });
  });
});

describe('where standard error is no terminal', () => {
  const { isTTY } = process.stderr;
  const written: string[] = [];
  beforeEach(() => {
    written.length = 0;
    process.stderr.isTTY = false;
    vi.useFakeTimers({ toFake: ['performance'] });
    vi.spyOn(process.stderr, 'write').mockImplementation((text) => written.push(String(text)) > 0);
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.useRealTimers();
    process.stderr.isTTY = isTTY;
  });

  /** A run of so many seconds that tells where it is every second. */
  const run = (seconds: number, shown = true) =>
    withProgress('quantizing', shown, async (update) => {
      for (let second = 1; second <= seconds; second++) {
        vi.advanceTimersByTime(1000);
        update({ done: second * 1000, total: 100_000, unit: 'weights', step: [second, 100] });
      }
    });

  test('nothing is said in the first ten seconds, and then a line every thirty', async () => {
    await run(9);
    expect(written).toEqual([]);
    await run(75);
    expect(written).toEqual(
      [
        'quantizing 10 %, 10/100, 1.00 k weights/s, 1 min 30 s left',
        'quantizing 40 %, 40/100, 1.00 k weights/s, 1 min 0 s left',
        'quantizing 70 %, 70/100, 1.00 k weights/s, 30 s left',
      ].map((line) => `hqq: ${line}\n`),
    );
  });

  test('nothing is said that is not to be shown', async () => {
    await run(75, false);
    expect(written).toEqual([]);
  });

  test('what the work throws comes through', async () => {
    const work = withProgress('quantizing', true, async () => {
      throw new Error('of the work');
    });
    await expect(work).rejects.toThrow('of the work');
  });
});
