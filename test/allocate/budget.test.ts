import { expect, test } from 'vitest';
import { Budget, type Choice, inOrder } from '../../lib/allocate/budget.js';
import { Truth } from '../../lib/allocate/divergence.js';
import { atOnce } from '../../lib/files/event-loop.js';
import { addToken, newSums } from '../../lib/runtime/evaluate/scores.js';
import { randomNumbers } from '../../lib/runtime/text/sampling.js';

const random = randomNumbers(5);
const integer = (most: number) => Math.floor(random() * most);

function* all(units: readonly (readonly Choice[])[]): Generator<{ cost: number; loss: number }> {
  if (units.length === 0) return void (yield { cost: 0, loss: 0 });
  for (const rest of all(units.slice(1))) {
    for (const { cost, loss } of units[0]!) yield { cost: cost + rest.cost, loss: loss + rest.loss };
  }
}

test('the assignment is the best of all, and the curve the least of all', () => {
  for (let round = 0; round < 60; round++) {
    const units = Array.from({ length: 1 + integer(5) }, () =>
      Array.from({ length: 1 + integer(4) }, () => ({ cost: 8 * (1 + integer(30)), loss: random() })),
    );
    const every = [...all(units)];
    const budget = atOnce(Budget.of(units));
    const most = 8 * (20 + integer(100));
    const within = every.filter(({ cost }) => cost >= most * 0.9 && cost <= most);
    const best = budget.best(most * 0.9, most);
    if (within.length === 0) expect(best).toBeUndefined();
    else {
      expect(best!.loss).toBeCloseTo(Math.min(...within.map(({ loss }) => loss)), 10);
      expect(best!.cost).toBe(best!.choices.reduce((sum, c, u) => sum + units[u]![c]!.cost, 0));
      expect(best!.cost).toBeLessThanOrEqual(most);
    }
    for (const { cost, loss } of budget.curve(7)) {
      expect(loss).toBeCloseTo(Math.min(...every.filter((one) => one.cost <= cost).map((one) => one.loss)), 10);
    }
  }
});

test('costs without a common divisor are rounded up: never more is spent than there is', () => {
  const units = Array.from({ length: 40 }, () =>
    [2, 3, 4].map((bits) => ({ cost: bits * 1_000_003 + integer(1000), loss: 1 / bits + random() / 10 })),
  );
  const { cost } = atOnce(Budget.of(units)).best(0, 130_000_000)!;
  expect(cost).toBeLessThanOrEqual(130_000_000);
  expect(cost).toBeGreaterThan(0.99 * 130_000_000);
});

test('in order, the first get more', () => {
  const unit = [2, 3].map((cost) => ({ cost, loss: 0 }));
  expect(inOrder([unit, unit, unit], [0, 1], 8)).toEqual([1, 1, 0]);
  expect(inOrder([unit, unit], [0, 0], 4)).toEqual([0, 0]);
});

test('divergence is that of evaluateModels', () => {
  const [p, q] = [0, 1].map(() => Float32Array.from({ length: 300 }, () => 20 * random() - 10)) as [
    Float32Array,
    Float32Array,
  ];
  const sums = newSums();
  addToken(sums, p, q, 0);
  expect(atOnce(Truth.of(p, 300)).divergence(0, q)).toBeCloseTo(sums.divergence, 9);
  expect(atOnce(Truth.of(p, 300)).divergence(0, p)).toBeCloseTo(0, 9);
});
