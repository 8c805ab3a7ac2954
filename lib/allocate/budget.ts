import type { Steps } from '../files/event-loop.js';

// Which choice each unit gets, so that all choices together cost what was asked for and lose the least.

/** What one choice of a unit costs, a whole number (bits or bytes), and what it loses. */
export interface Choice {
  readonly cost: number;
  readonly loss: number;
}

/** An assignment: of each unit the index of its choice. */
export interface Allotment {
  readonly choices: readonly number[];
  readonly cost: number;
  readonly loss: number;
}

/** A point of the trade-off: the least loss of all assignments that cost at most so much. */
export interface TradeOff {
  readonly cost: number;
  readonly loss: number;
}

/** Costs that the table tells apart. Costs that have a common divisor are counted in it: few models need more. */
const MOST_STEPS = 1 << 16;

/** Sums that are looked at in one step. */
const AT_ONCE = 1 << 14;

/**
 * The least losses of all costs, by dynamic programming over sums of costs: `least[s]` after unit u is the minimum over its choices c of
 * `least[s - cost(c)] + loss(c)` before it. Exact where costs, counted in their greatest common divisor, come to no more than 65,536 in
 * all; else costs are rounded up to the 65,536th part of the greatest sum, which may leave that of each unit unused.
 */
export class Budget {
  readonly #units: readonly (readonly Choice[])[];
  readonly #step: number;
  /** Least loss by sum in steps; Infinity for what no assignment comes to. */
  readonly #least: Float64Array;
  /** Of each unit: the choice that the least loss of a sum takes. */
  readonly #taken: readonly Uint8Array[];

  private constructor(
    units: readonly (readonly Choice[])[],
    step: number,
    { least, taken }: { readonly least: Float64Array; readonly taken: readonly Uint8Array[] },
  ) {
    this.#units = units;
    this.#step = step;
    this.#least = least;
    this.#taken = taken;
  }

  /** @param units Of each its choices, 1 to 255 of them. */
  static *of(units: readonly (readonly Choice[])[]): Steps<Budget> {
    const most = units.reduce((sum, choices) => sum + Math.max(...choices.map(({ cost }) => cost)), 0);
    const divisor = Math.max(
      1,
      units.flat().reduce((common, { cost }) => gcd(common, cost), 0),
    );
    const step = Math.max(divisor, Math.ceil(most / MOST_STEPS));
    let least = new Float64Array([0]);
    const taken: Uint8Array[] = [];
    for (const choices of units) {
      const steps = choices.map(({ cost }) => Math.ceil(cost / step));
      const next = new Float64Array(least.length + Math.max(...steps)).fill(Infinity);
      const own = new Uint8Array(next.length);
      for (const [choice, { loss }] of choices.entries()) {
        const shift = steps[choice]!;
        for (let s = 0; s < least.length; s++) {
          if (s % AT_ONCE === 0) yield;
          const sum = least[s]! + loss;
          if (!(sum < next[s + shift]!)) continue;
          next[s + shift] = sum;
          own[s + shift] = choice;
        }
      }
      least = next;
      taken.push(own);
    }
    return new Budget(units, step, { least, taken });
  }

  /** The assignment that loses least of those that cost from `least` to `most`; undefined where there is none. */
  best(least: number, most: number): Allotment | undefined {
    let at: number | undefined;
    // A sum of costs that were rounded up may be less than it seems; it is never more.
    for (let s = Math.ceil(least / this.#step); s < this.#least.length && s * this.#step <= most; s++) {
      if (this.#least[s]! < (at === undefined ? Infinity : this.#least[at]!)) at = s;
    }
    return at === undefined ? undefined : this.#allotment(at);
  }

  /** The least loss for each of `points` costs, evenly spread from the least to the greatest. */
  curve(points: number): readonly TradeOff[] {
    const last = this.#least.length - 1;
    const first = this.#least.findIndex((loss) => loss < Infinity);
    const curve: TradeOff[] = [];
    let [s, loss, next] = [first, Infinity, 0];
    for (; s <= last && next < points; s++) {
      loss = Math.min(loss, this.#least[s]!);
      while (next < points && s >= Math.floor(first + ((last - first) * next) / (points - 1))) {
        curve.push({ cost: s * this.#step, loss });
        next++;
      }
    }
    return curve;
  }

  #allotment(sum: number): Allotment {
    const choices: number[] = [];
    let at = sum;
    for (let unit = this.#units.length - 1; unit >= 0; unit--) {
      const choice = this.#taken[unit]![at]!;
      choices.unshift(choice);
      at -= Math.ceil(this.#units[unit]![choice]!.cost / this.#step);
    }
    const taken = choices.map((choice, unit) => this.#units[unit]![choice]!);
    return {
      choices,
      cost: taken.reduce((total, { cost }) => total + cost, 0),
      loss: taken.reduce((total, { loss }) => total + loss, 0),
    };
  }
}

/** Wider codes for the first units, as far as the budget goes: what a plan has to beat. `narrow` and `wide` are indices of choices. */
export function inOrder(
  units: readonly (readonly Choice[])[],
  [narrow, wide]: readonly [number, number],
  budget: number,
): readonly number[] {
  let left = budget - units.reduce((sum, choices) => sum + choices[narrow]!.cost, 0);
  return units.map((choices) => {
    const more = choices[wide]!.cost - choices[narrow]!.cost;
    if (more > left) return narrow;
    left -= more;
    return wide;
  });
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
