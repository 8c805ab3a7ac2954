import type {
  FakeGroupsArgs,
  FakeQuantizeArgs,
  FakeQuantizeGradientArgs,
  FakeQuantizeStepArgs,
} from '../../../../binding.js';
import { LANES } from '../../../matrix/constants.js';
import { ZERO_KINDS } from '../../../solvers/solvers.js';
import { Meter } from '../meter.js';
import type { Units } from '../slices.js';

// The twin of native/kernels/tune/fake.h, to the bit.

const f = Math.fround;
const TINY = 2 ** -126;

/** Half to even, as far as codes can be: what lies beyond is clamped, rounded or not. */
const nearest = (x: number) => (Math.abs(x) < 4194304 ? f(f(x + 12582912) - 12582912) : x);

export function* fakeQuantize(args: FakeQuantizeArgs): Units {
  const { out, codes } = args;
  const group = new Group(args);
  for (const _ of group.all()) {
    for (let i = 0; i < group.size; i++) {
      const at = group.at(i);
      const code = group.code(at);
      if (out.length > 0) out[at] = group.faked(code);
      if (codes.length > 0) codes[at] = code;
    }
    if (group.isDue()) yield;
  }
}

export function* fakeQuantizeGradient(args: FakeQuantizeGradientArgs): Units {
  const { codes, gradient, weightGradient, offsetGradient, scaleGradient, zeroGradient } = args;
  const group = new Group(args);
  for (const g of group.all()) {
    for (let i = 0; i < group.size; i++) {
      const at = group.at(i);
      if (codes.length > 0) {
        group.add(i, gradient[at]!, codes[at]!, 0, 0);
        continue;
      }
      const code = group.code(at);
      group.add(i, gradient[at]!, code, group.inside, group.scaled);
      const through = f(gradient[at]! * group.inside);
      if (weightGradient.length > 0) weightGradient[at] = through;
      if (offsetGradient.length > 0) offsetGradient[at] = through * group.scale;
    }
    const { ofScale, ofZero } = group.sums();
    if (scaleGradient.length > 0) scaleGradient[g] = ofScale;
    if (zeroGradient.length > 0) zeroGradient[g] = 0 - f(group.scale * ofZero);
    if (group.isDue()) yield;
  }
}

export function* fakeQuantizeStep(args: FakeQuantizeStepArgs): Units {
  const { gradient, offsets, out } = args;
  const offsetStep = f(args.offsetStep);
  const group = new Group(args);
  for (const g of group.all()) {
    const step = f(offsetStep * signOf(group.scale));
    for (let i = 0; i < group.size; i++) {
      const at = group.at(i);
      const code = group.code(at);
      group.add(i, gradient[at]!, code, group.inside, group.scaled);
      const through = gradient[at] === 0 ? 0 : group.inside;
      const moved = f(offsets[at]! - f((isNegative(gradient[at]!) ? -through : through) * step));
      offsets[at] = clamp(moved, -0.5, 0.5);
    }
    const { ofScale, ofZero } = group.sums();
    moveGroup(args, g, ofScale, ofZero);
    group.take(g);
    for (let i = 0; i < group.size; i++) {
      const at = group.at(i);
      out[at] = group.faked(group.code(at));
    }
    if (group.isDue()) yield;
  }
}

/** Moves a group's scale and zero by a step against the gradient's sign. */
function moveGroup(args: FakeQuantizeStepArgs, g: number, ofScale: number, ofZero: number): void {
  const { maxCode, zeroKind, startScale, startZero, factor, shift, scale, zero } = args;
  const start = startScale[g]!;
  const before = scale[g]!;
  const range = f(args.factorRange);
  const moved = f(factor[g]! - f(f(args.factorStep) * (signOf(ofScale) * signOf(start))));
  factor[g] = clamp(moved, f(1 - range), f(1 + range));
  scale[g] = start * factor[g]!;
  const kind = ZERO_KINDS[zeroKind];
  if (kind === 'symmetric') return;
  const shifted = f(shift[g]! + f(f(args.shiftStep) * (signOf(ofZero) * signOf(before))));
  shift[g] = clamp(shifted, 0 - f(args.shiftRange), f(args.shiftRange));
  const sum = f(startZero[g]! + shift[g]!);
  zero[g] = kind === 'integer' ? nearest(clamp(sum, 0, maxCode)) + 0 : sum;
}

const signOf = (x: number) => (x > 0 ? 1 : 0) - (x < 0 ? 1 : 0);
const isNegative = (x: number) => x < 0 || (x === 0 && 1 / x < 0);
const clamp = (x: number, least: number, most: number) => (x < least ? least : x > most ? most : x);

/** One group after the other: its scale and zero, where its weights are, and its sums. */
class Group {
  readonly size: number;
  scale = 0;
  /** After `code`: 1 where the code is the level itself, 0 where it was clamped. */
  inside = 0;
  /** Likewise: the weight in units of the scale. */
  scaled = 0;
  #zero = 0;
  #inverse = 0;
  #first = 0;
  readonly #args: FakeGroupsArgs;
  readonly #stride: number;
  /** Sums go by lanes along a row, and beside each other along each column. */
  readonly #lanes: number;
  readonly #ofScale = new Float32Array(LANES);
  readonly #ofZero = new Float32Array(LANES);
  readonly #meter = new Meter();

  constructor(args: FakeGroupsArgs) {
    this.#args = args;
    this.size = args.axis === 1 ? args.cols : args.rows;
    this.#stride = args.axis === 1 ? 1 : args.cols;
    this.#lanes = args.axis === 1 ? LANES : 1;
  }

  *all(): Generator<number> {
    const { axis, rows, cols } = this.#args;
    for (let g = 0; g < (axis === 1 ? rows : cols); g++) {
      this.#first = axis === 1 ? g * cols : g;
      this.take(g);
      yield g;
    }
  }

  /** Reads the scale and the zero of group `g`. A scale of zero, or as good as that, stands for zeros: its inverse is no number. */
  take(g: number): void {
    this.scale = this.#args.scale[g]!;
    this.#zero = this.#args.zero[g]!;
    this.#inverse = Math.abs(this.scale) >= TINY ? f(1 / this.scale) : 0;
  }

  at(i: number): number {
    return this.#first + i * this.#stride;
  }

  /** Of the weight at `at`. */
  code(at: number): number {
    const { weights, offsets, maxCode } = this.#args;
    this.scaled = f(weights[at]! * this.#inverse);
    const level = nearest(f(f(this.scaled + this.#zero) + (offsets.length > 0 ? offsets[at]! : 0)));
    const code = level > 0 ? Math.min(level, maxCode) : 0;
    this.inside = level === code ? 1 : 0;
    return code;
  }

  faked(code: number): number {
    return f(f(code - this.#zero) * this.scale);
  }

  /** Adds weight `i`, whose code was found last or is given. */
  add(i: number, gradient: number, code: number, inside: number, scaled: number): void {
    const lane = i % this.#lanes;
    const byScale = f(f(code - this.#zero) - f(inside * scaled));
    this.#ofScale[lane] = this.#ofScale[lane]! + f(gradient * byScale);
    this.#ofZero[lane] = this.#ofZero[lane]! + f(gradient * (1 - inside));
  }

  /** Of a gradient times what weights grow by with the scale, and with the zero, but for a factor, -scale. They begin anew after it. */
  sums(): { readonly ofScale: number; readonly ofZero: number } {
    for (let width = this.#lanes / 2; width >= 1; width /= 2) {
      for (const lanes of [this.#ofScale, this.#ofZero])
        for (let i = 0; i < width; i++) lanes[i] = lanes[i]! + lanes[i + width]!;
    }
    const sums = { ofScale: this.#ofScale[0]!, ofZero: this.#ofZero[0]! };
    this.#ofScale.fill(0);
    this.#ofZero.fill(0);
    return sums;
  }

  isDue(): boolean {
    return this.#meter.due(16 * this.size);
  }
}
