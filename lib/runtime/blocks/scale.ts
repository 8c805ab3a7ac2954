import type { Plan } from './plan.js';

/** Adds `x = x * factor`, within a soft cap where that is not 0; nothing where neither changes anything. */
export function addScale(plan: Plan, x: Float32Array, factor: number, softcap: number): void {
  if (factor === 1 && softcap === 0) return;
  const work = (softcap > 0 ? 16 : 1) * x.length;
  plan.add(work, (threads) => [{ operation: 'scale', args: { x, factor, softcap, threads } }]);
}
