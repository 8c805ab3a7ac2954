import { finishAs, type GroupStats } from './finish.js';
import type { Group } from './group.js';

const TINY = 2 ** -126;

/** The twin of native/kernels/solve/encode.h: writes the nearest codes of a group whose scale and zero are given. */
export function encodeGroup(group: Group, scale: number, zero: number, maxCode: number, stats: GroupStats): void {
  const magnitude = Math.abs(scale);
  const isZero = !(magnitude >= TINY);
  group.invScale = isZero ? 1 : Math.fround(1 / scale);
  group.scale = isZero ? 1 : magnitude;
  group.zero = zero;
  group.scaleWeights();
  finishAs(group, scale, zero, maxCode, stats);
}
