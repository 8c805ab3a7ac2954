import type {
  Backend,
  ConvertArgs,
  DequantizeArgs,
  DistanceArgs,
  Operations,
  PackArgs,
  PrepareArgs,
  PreparedArgs,
  QuantizeArgs,
  SequenceArgs,
  Task,
  Words,
} from '../../../binding.js';
import { DISTANCE_TILE, LANES } from '../../matrix/constants.js';
import { FORMATS, type PackFormat } from '../../matrix/format.js';
import { extremes } from './extremes.js';
import { narrow, roundTo, sumLanes, widen } from './lanes.js';
import { add, attention, denseLinear, largePages, rmsNorm, rope, swiglu } from './layers.js';
import { linear, linearTiled } from './linear.js';
import { expand, layOut } from './panels.js';
import { Slices } from './slices.js';
import { GroupSolver, type GroupStats } from './solve.js';

/** Work cut into pieces of about a millisecond: after each, the event loop may have its turn. */
type Units = Generator<void, void, void>;

/**
 * The operations in plain JavaScript, for machines without a native binary: the same bytes, on one thread. Knows nothing
 * of Node.
 */
export function createJsBackend(): Backend {
  const slices = new Slices();
  return {
    name: 'js',
    isa: 'js',
    dot: 'plain',
    run(operation, args) {
      const units = OPERATIONS[operation](args);
      while (!units.next().done);
    },
    start(operation, args): Task {
      return slices.add(OPERATIONS[operation](args));
    },
    prepare: (args) => new Prepared(args),
  };
}

const OPERATIONS: { readonly [K in keyof Operations]: (args: Operations[K]) => Units } = {
  quantize,
  extremes,
  pack,
  unpack,
  dequantize,
  distance,
  convert,
  denseLinear,
  rmsNorm,
  rope,
  attention,
  swiglu,
  add,
  largePages,
  prepared,
  sequence,
  layOut,
  expand,
  linear,
  linearTiled,
};

/** What `prepare` makes. There is nothing to read ahead here. */
class Prepared {
  constructor(readonly args: PrepareArgs) {}
}

function* prepared({ sequences, index }: PreparedArgs): Units {
  if (!(sequences instanceof Prepared)) throw new TypeError('Expected sequences to be what prepare made.');
  yield* sequence(sequences.args.sequences[index]!);
}

function* sequence({ steps }: SequenceArgs): Units {
  for (const { operation, args } of steps) yield* (OPERATIONS[operation] as (args: unknown) => Units)(args);
}

function* quantize(args: QuantizeArgs): Units {
  const total: GroupStats = { absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0 };
  for (const unit of args.axis === 1 ? rowGroups(args) : columnGroups(args)) {
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

const newStats = (): GroupStats => ({ absError: 0, squaredError: 0, squaredWeight: 0, iterations: 0 });

/** Weights after which the event loop may have its turn, in the middle of a unit too. A single longer group is not cut. */
const TURN_WEIGHTS = 8192;

/** Axis 1: a group is a row of the grouped matrix. A unit is `block` packed rows. Yields a unit's sums, or nothing for a pause. */
function* rowGroups(args: QuantizeArgs): Generator<GroupStats | undefined> {
  const { rows, cols, step, block } = args;
  const format = FORMATS[args.format]!;
  const solver = new GroupSolver(cols, cols, args);
  const pause = Math.max(1, Math.floor(TURN_WEIGHTS / cols));
  args.packed.fill(0);
  for (let first = 0; first < step; first += block) {
    const stats = newStats();
    const last = Math.min(first + block, step);
    for (let field = 0; field < format.fields; field++) {
      for (let r = first; r < last; r++) {
        const group = field * step + r;
        if (group >= rows) break;
        widen(args.weights, args.dtype, group * cols, cols, solver.weights);
        solver.solve(stats);
        args.scale[group] = solver.scale;
        args.zero[group] = solver.zero;
        addField(args.packed, r * cols, solver.codes, 0, cols, shiftOf(format, field));
        if ((group + 1) % pause === 0) yield undefined;
      }
    }
    yield stats;
  }
}

/** Axis 0: a group is a column of the grouped matrix. A unit is a panel of `block * 16` columns. */
function* columnGroups(args: QuantizeArgs): Generator<GroupStats | undefined> {
  const { rows, cols, step } = args;
  const format = FORMATS[args.format]!;
  const solver = new GroupSolver(rows, Math.max(rows, format.fields * step), args);
  const panel = args.block * LANES;
  const pause = Math.max(1, Math.floor(TURN_WEIGHTS / rows));
  const wide = new Float32Array(rows * panel);
  args.packed.fill(0);
  for (let first = 0; first < cols; first += panel) {
    const stats = newStats();
    const count = Math.min(panel, cols - first);
    for (let r = 0; r < rows; r++) widen(args.weights, args.dtype, r * cols + first, count, wide, r, rows);
    for (let c = 0; c < count; c++) {
      solver.weights.set(wide.subarray(c * rows, (c + 1) * rows));
      solver.solve(stats);
      const group = first + c;
      args.scale[group] = solver.scale;
      args.zero[group] = solver.zero;
      for (let r = 0; r < rows; r++) {
        const at = (r % step) * cols + group;
        args.packed[at] = args.packed[at]! | (solver.codes[r]! << shiftOf(format, Math.floor(r / step)));
      }
      if ((group + 1) % pause === 0) yield undefined;
    }
    yield stats;
  }
}

/** Index of the first weight that is NaN or infinite, or -1: all bits of its exponent are set. */
function firstNonFinite({ weights, dtype }: QuantizeArgs): number {
  if (dtype === 0) return (weights as Float32Array).findIndex((w) => !Number.isFinite(w));
  const exponent = dtype === 1 ? 0x7c00 : 0x7f80;
  return (weights as Uint16Array).findIndex((w) => (w & exponent) === exponent);
}

function shiftOf(format: PackFormat, field: number): number {
  return (format.fields - 1 - field) * format.codeBits;
}

function addField(words: Words, at: number, codes: Uint8Array, from: number, count: number, shift: number): void {
  for (let c = 0; c < count; c++) words[at + c] = words[at + c]! | (codes[from + c]! << shift);
}

function takeField(
  words: Words,
  at: number,
  count: number,
  shift: number,
  mask: number,
  codes: Uint8Array,
  to: number,
): void {
  for (let c = 0; c < count; c++) codes[to + c] = (words[at + c]! >>> shift) & mask;
}

function* pack({ rows, cols, step, format: id, codes, packed }: PackArgs): Units {
  const format = FORMATS[id]!;
  packed.fill(0);
  for (let row = 0; row < rows; row++) {
    addField(packed, (row % step) * cols, codes, row * cols, cols, shiftOf(format, Math.floor(row / step)));
    if (row % 16 === 15) yield;
  }
}

function* unpack({ rows, cols, step, format: id, codes, packed }: PackArgs): Units {
  const format = FORMATS[id]!;
  const mask = (1 << format.codeBits) - 1;
  for (let row = 0; row < rows; row++) {
    takeField(packed, (row % step) * cols, cols, shiftOf(format, Math.floor(row / step)), mask, codes, row * cols);
    if (row % 16 === 15) yield;
  }
}

function* dequantize(args: DequantizeArgs): Units {
  const { rows, cols, step, axis, dtype } = args;
  const format = FORMATS[args.format]!;
  const mask = (1 << format.codeBits) - 1;
  const codes = new Uint8Array(cols);
  const floats = new Float32Array(cols);
  const f = Math.fround;
  for (let row = 0; row < rows; row++) {
    takeField(args.packed, (row % step) * cols, cols, shiftOf(format, Math.floor(row / step)), mask, codes, 0);
    if (args.roundEach && dtype !== 0) {
      for (let c = 0; c < cols; c++) {
        const group = axis === 1 ? row : c;
        const offset = roundTo(dtype, f(roundTo(dtype, codes[c]!) - roundTo(dtype, args.zero[group]!)));
        floats[c] = roundTo(dtype, f(offset * roundTo(dtype, args.scale[group]!)));
      }
    } else if (axis === 1) {
      const scale = args.scale[row]!;
      const zero = args.zero[row]!;
      for (let c = 0; c < cols; c++) floats[c] = f(f(codes[c]! - zero) * scale);
    } else {
      for (let c = 0; c < cols; c++) floats[c] = f(f(codes[c]! - args.zero[c]!) * args.scale[c]!);
    }
    narrow(floats, cols, dtype, args.out, row * cols);
    if (row % 16 === 15) yield;
  }
}

function* distance(args: DistanceArgs): Units {
  const count = args.a.length;
  const a = new Float32Array(Math.min(count, DISTANCE_TILE));
  const b = new Float32Array(a.length);
  const sums = [0, 0, 0];
  const lanes = sums.map(() => new Float64Array(LANES));
  let largest = 0;
  for (let first = 0; first < count; first += DISTANCE_TILE) {
    const length = Math.min(DISTANCE_TILE, count - first);
    widen(args.a, args.aDtype, first, length, a);
    widen(args.b, args.bDtype, first, length, b);
    for (const lane of lanes) lane.fill(0);
    const [errors, squares, weights] = lanes as [Float64Array, Float64Array, Float64Array];
    for (let i = 0; i < length; i++) {
      const x = a[i]!;
      const error = x - b[i]!;
      const magnitude = Math.abs(error);
      const lane = i & (LANES - 1);
      errors[lane] = errors[lane]! + magnitude;
      squares[lane] = squares[lane]! + error * error;
      weights[lane] = weights[lane]! + x * x;
      if (magnitude > largest) largest = magnitude;
    }
    lanes.forEach((lane, k) => {
      sums[k] = sums[k]! + sumLanes(lane);
    });
    yield;
  }
  args.stats.set([...sums, largest]);
}

function* convert({ from, fromDtype, to, toDtype }: ConvertArgs): Units {
  const floats = new Float32Array(Math.min(from.length, TURN_WEIGHTS));
  for (let first = 0; first < from.length; first += floats.length) {
    const count = Math.min(floats.length, from.length - first);
    if (fromDtype === toDtype) to.set(from.subarray(first, first + count), first);
    else if (toDtype === 0) widen(from, fromDtype, first, count, to as Float32Array, first);
    else if (fromDtype === 0) narrow((from as Float32Array).subarray(first), count, toDtype, to, first);
    else {
      widen(from, fromDtype, first, count, floats);
      narrow(floats, count, toDtype, to, first);
    }
    yield;
  }
}
