import { expect } from 'vitest';
import { gaussian } from './random.mjs';

/** Checks gradients along random directions: differences of the loss over a step, with the error of the step taken out (Richardson). */
export async function expectSlope(
  what: string,
  loss: () => Promise<number>,
  at: Float32Array,
  gradient: Float32Array,
  random: () => number,
  near = 2e-4,
): Promise<void> {
  const before = at.slice();
  const direction = Float32Array.from({ length: at.length }, gaussian(random, 1));
  const size = Math.hypot(...before) / Math.hypot(...direction);
  const slope = async (step: number) => {
    const ends: number[] = [];
    for (const sign of [1, -1]) {
      at.set(before.map((value, i) => value + sign * step * direction[i]!));
      ends.push(await loss());
    }
    at.set(before);
    return (ends[0]! - ends[1]!) / (2 * step);
  };
  const [wide, narrow] = [await slope(size * 0.02), await slope(size * 0.01)];
  const want = (4 * narrow - wide) / 3;
  const got = gradient.reduce((sum, value, i) => sum + value * direction[i]!, 0);
  const most = Math.hypot(...gradient) * Math.hypot(...direction);
  expect(Math.abs(got - want), `${what}: ${got}, not ${want}`).toBeLessThanOrEqual(near * most);
}
