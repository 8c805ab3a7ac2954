import type { EncodeArgs, ImportanceArgs, QuantizeArgs } from '../../../binding.js';
import { LANES } from '../../matrix/constants.js';
import { FORMATS } from '../../matrix/format.js';
import { widen } from './lanes.js';
import { addField, shiftOf } from './packing.js';
import type { Units } from './slices.js';
import { encodeGroup } from './solve/encode.js';
import type { GroupStats } from './solve/finish.js';
import { Group } from './solve/group.js';
import { GroupSolver } from './solve/solve.js';
import { solverOf } from './solve/solvers.js';

/** The twin of native/core/quantize.cc. */

const newStats = (): GroupStats => ({ absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0 });

/** What gives groups of a size their codes, one at a time: `group` holds the weights, which are the caller's to write, and the codes. */
interface Coder {
  readonly group: Group;
  code(index: number, stats: GroupStats): void;
}

type NewCoder = (size: number, codesLength: number) => Coder;

export function quantize(args: QuantizeArgs): Units {
  const { importance } = args;
  return run(args, (size, codesLength) => {
    const solver = new GroupSolver(size, codesLength, args, solverOf(args.solver));
    const { group } = solver;
    const code = (index: number, stats: GroupStats) => {
      if (importance) gather(importance, index, group.importance);
      solver.solve(stats, importance !== undefined);
      args.scale[index] = group.scale;
      args.zero[index] = group.zero;
    };
    return { group, code };
  });
}

export function encode(args: EncodeArgs): Units {
  const { scale, zero, maxCode } = args;
  return run(args, (size, codesLength) => {
    const group = new Group(size, codesLength);
    return { group, code: (index, stats) => encodeGroup(group, scale[index]!, zero[index]!, maxCode, stats) };
  });
}

function* run(args: EncodeArgs, newCoder: NewCoder): Units {
  const total = newStats();
  for (const unit of args.axis === 1 ? rowGroups(args, newCoder) : columnGroups(args, newCoder)) {
    yield;
    if (unit === undefined) continue;
    // Summed per unit first, as threads do: one order of additions for every backend.
    total.absError += unit.absError;
    total.squaredError += unit.squaredError;
    total.squaredWeight += unit.squaredWeight;
    total.iterations = Math.max(total.iterations, unit.iterations);
  }
  const bad = Number.isFinite(total.absError) ? -1 : firstNonFinite(args);
  args.stats.set([total.absError, total.squaredError, total.squaredWeight, total.iterations, bad]);
}

/** Weights after which the event loop may have its turn, in the middle of a unit too. A single longer group is not cut. */
const TURN_WEIGHTS = 2048;

/** Axis 1: a group is a row of the grouped matrix. A unit is `block` packed rows. Yields a unit's sums, or nothing for a pause. */
function* rowGroups(args: EncodeArgs, newCoder: NewCoder): Generator<GroupStats | undefined> {
  const { rows, cols, step, block } = args;
  const format = FORMATS[args.format]!;
  const coder = newCoder(cols, cols);
  const { group } = coder;
  const pause = Math.max(1, Math.floor(TURN_WEIGHTS / cols));
  args.packed.fill(0);
  for (let first = 0; first < step; first += block) {
    const stats = newStats();
    const last = Math.min(first + block, step);
    for (let field = 0; field < format.fields; field++) {
      for (let r = first; r < last; r++) {
        const index = field * step + r;
        if (index >= rows) break;
        widen(args.weights, args.dtype, index * cols, cols, group.weights);
        coder.code(index, stats);
        addField(args.packed, r * cols, group.codes, 0, cols, shiftOf(format, field));
        if ((index + 1) % pause === 0) yield undefined;
      }
    }
    yield stats;
  }
}

/** Axis 0: a group is a column of the grouped matrix. A unit is a strip of `block * 16` columns. */
function* columnGroups(args: EncodeArgs, newCoder: NewCoder): Generator<GroupStats | undefined> {
  const { rows, cols, step } = args;
  const format = FORMATS[args.format]!;
  const coder = newCoder(rows, Math.max(rows, format.fields * step));
  const { group } = coder;
  const strip = args.block * LANES;
  const pause = Math.max(1, Math.floor(TURN_WEIGHTS / rows));
  const wide = new Float32Array(rows * strip);
  args.packed.fill(0);
  for (let first = 0; first < cols; first += strip) {
    const stats = newStats();
    const count = Math.min(strip, cols - first);
    for (let r = 0; r < rows; r++) widen(args.weights, args.dtype, r * cols + first, count, wide, r, rows);
    for (let c = 0; c < count; c++) {
      const index = first + c;
      group.weights.set(wide.subarray(c * rows, (c + 1) * rows));
      coder.code(index, stats);
      for (let r = 0; r < rows; r++) {
        const at = (r % step) * cols + index;
        args.packed[at] = args.packed[at]! | (group.codes[r]! << shiftOf(format, Math.floor(r / step)));
      }
      if ((index + 1) % pause === 0) yield undefined;
    }
    yield stats;
  }
}

/** `to[i]` = importance of weight `i` of a group. */
function gather({ values, starts, stride }: ImportanceArgs, group: number, to: Float32Array): void {
  let feature = starts[group]! % values.length;
  for (let i = 0; i < to.length; i++) {
    to[i] = values[feature]!;
    feature = (feature + stride) % values.length;
  }
}

/** Index of the first weight that is NaN or infinite, or -1: all bits of its exponent are set. */
function firstNonFinite({ weights, dtype }: EncodeArgs): number {
  if (dtype === 0) return (weights as Float32Array).findIndex((w) => !Number.isFinite(w));
  const exponent = dtype === 1 ? 0x7c00 : 0x7f80;
  return (weights as Uint16Array).findIndex((w) => (w & exponent) === exponent);
}
