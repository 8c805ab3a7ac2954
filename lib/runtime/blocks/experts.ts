import type { Backend } from '../../../binding.js';
import { yieldIfDue } from '../../files/event-loop.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import type { ExpertFrame, Frame } from './frame.js';
import { addFused, addNamed, type NamedLinear } from './linear.js';
import type { Lora } from './lora.js';
import { addGate, type MlpLinears } from './mlp.js';
import { type Decision, Plan, type PlanRun } from './plan.js';
import type { LinearInput } from './tap.js';

/** Linear layers of an MLP that is several. */
export interface ExpertLinears {
  /** How much each expert is for a position: one number each. */
  readonly router: NamedLinear;
  readonly experts: readonly MlpLinears[];
}

/** Which experts positions go through. */
export interface Routes {
  /** `[rows * chosen]`: for each position its experts, in their order. */
  readonly experts: Int32Array;
  /** `[rows * chosen]`: for each of these, which row of the results is its own. */
  readonly places: Int32Array;
  /** What each of them counts. */
  readonly shares: Float64Array;
  /** First row of each expert, and past the last one: `[count + 1]`. */
  readonly begins: Int32Array;
  /** `[rows * chosen]`: the position that each row is of. */
  readonly positions: Int32Array;
}

interface ExpertRows {
  readonly rows: number;
  readonly threads: number;
  readonly lora: Lora | undefined;
}

/** An MLP of experts: it reads `mlpIn` and what the router gives, which decides what is computed, and writes `change`. */
export class ExpertMlp implements Decision {
  readonly config: LanguageModelConfig;
  readonly #frame: Frame;
  readonly #experts: readonly MlpLinears[];
  readonly #rows: ExpertRows;

  constructor(experts: readonly MlpLinears[], config: LanguageModelConfig, frame: Frame, rows: ExpertRows) {
    this.config = config;
    this.#experts = experts;
    this.#frame = frame;
    this.#rows = rows;
  }

  /** `[rows, hiddenSize]` */
  get mlpIn(): Float32Array {
    return this.#frame.mlpIn;
  }

  /** `[rows, hiddenSize]` */
  get change(): Float32Array {
    return this.#frame.change;
  }

  /** What it computes in; the router has written `logits`. */
  get frame(): ExpertFrame {
    return this.#frame.experts!;
  }

  async run(backend: Backend, run: PlanRun): Promise<void> {
    const routes = await this.gather();
    await this.planOf(routes).run(backend, run);
    await this.combine(routes);
  }

  /** Chooses, and puts the rows of each expert side by side. */
  async gather(): Promise<Routes> {
    const { mlpIn, config } = this;
    const { logits, gathered } = this.frame;
    const { hiddenSize: width, experts } = config;
    const routes = await route(logits, this.#rows.rows, experts!);
    for (const [place, row] of routes.positions.entries()) {
      gathered.set(mlpIn.subarray(row * width, (row + 1) * width), place * width);
      await yieldIfDue();
    }
    return routes;
  }

  /** From `frame.gathered` to `frame.results`, and `frame.inputs` as it is then. */
  planOf({ begins, positions }: Routes): Plan {
    const { config, frame } = this;
    const { threads, lora } = this.#rows;
    const used = this.#experts.flatMap((linears, expert) => {
      const [from, to] = [begins[expert]!, begins[expert + 1]!];
      if (from === to) return [];
      const own = slices(frame, from, to, config.hiddenSize, config.experts!.width);
      return [{ ...linears, ...own, count: to - from, adapted: lora?.select(positions.subarray(from, to)) }];
    });
    const plan = new Plan(threads);
    for (const { gateUp, x, gate, up, count, adapted } of used)
      addFused(plan, gateUp, x, count, { whole: undefined, parts: [gate, up] }, adapted);
    const [gate, up] = frame.mlp.parts as [Float32Array, Float32Array];
    addGate(plan, config.activation, gate, up, frame.activated);
    for (const { down, activated, out, count, adapted } of used) addNamed(plan, down, activated, count, out, adapted);
    frame.inputs = used.flatMap(({ gateUp, down, x, activated, count }): LinearInput[] => [
      ...gateUp.map(({ module }) => ({ module, rows: count, x })),
      { module: down.module, rows: count, x: activated },
    ]);
    return plan;
  }

  /** Each position's results become one. */
  async combine({ places, shares }: Routes): Promise<void> {
    const { change, config, frame } = this;
    const { hiddenSize: width, experts } = config;
    const { chosen } = experts!;
    for (let row = 0; row < this.#rows.rows; row++) {
      const [from, to] = [row * chosen, (row + 1) * chosen];
      addShares(frame.results, places.subarray(from, to), shares.subarray(from, to), width, {
        out: change.subarray(row * width, (row + 1) * width),
      });
      await yieldIfDue();
    }
  }
}

/**
 * Adds an MLP of experts to a plan: it reads `frame.mlpIn` and writes `frame.change`. What the router gives is there only when the plan
 * runs; it decides in JavaScript which products follow.
 */
export function addExperts(
  plan: Plan,
  { router, experts }: ExpertLinears,
  config: LanguageModelConfig,
  frame: Frame,
  rows: number,
  lora: Lora | undefined,
): void {
  addNamed(plan, router, frame.mlpIn, rows, frame.experts!.logits, lora);
  plan.decide(new ExpertMlp(experts, config, frame, { rows, threads: plan.threads, lora }));
}

/** Rows of one expert. */
function slices(
  { gathered, mlp, activated, results }: ExpertFrame,
  from: number,
  to: number,
  width: number,
  inner: number,
) {
  const [gate, up] = mlp.parts as [Float32Array, Float32Array];
  const cut = (of: Float32Array, cols: number) => of.subarray(from * cols, to * cols);
  return {
    x: cut(gathered, width),
    gate: cut(gate, inner),
    up: cut(up, inner),
    activated: cut(activated, inner),
    out: cut(results, width),
  };
}

/**
 * Chooses the most likely experts of each position; of equals the first. Their probabilities, among all experts or among those that were
 * chosen, are what each counts. A position's choice depends on its own logits alone.
 */
async function route(
  logits: Float32Array,
  rows: number,
  { count, chosen, normalized }: NonNullable<LanguageModelConfig['experts']>,
): Promise<Routes> {
  const each = rows * chosen;
  const [experts, shares] = [new Int32Array(each), new Float64Array(each)];
  const begins = new Int32Array(count + 1);
  for (let row = 0; row < rows; row++) {
    const own = logits.subarray(row * count, (row + 1) * count);
    const most = chooseMost(own, chosen);
    const highest = own[most[0]!]!;
    const powers = most.map((expert) => Math.exp(own[expert]! - highest));
    const total = (normalized ? powers : Array.from(own, (logit) => Math.exp(logit - highest))).reduce((a, b) => a + b);
    const order = most.map((_, i) => i).sort((a, b) => most[a]! - most[b]!);
    for (const [i, from] of order.entries()) {
      experts[row * chosen + i] = most[from]!;
      shares[row * chosen + i] = powers[from]! / total;
      begins[most[from]! + 1]!++;
    }
    await yieldIfDue();
  }
  for (let expert = 0; expert < count; expert++) begins[expert + 1]! += begins[expert]!;
  const next = begins.slice();
  const [places, positions] = [new Int32Array(each), new Int32Array(each)];
  for (let i = 0; i < each; i++) {
    const place = next[experts[i]!]!++;
    places[i] = place;
    positions[place] = Math.floor(i / chosen);
  }
  return { experts, places, shares, begins, positions };
}

/** Places of the greatest numbers, the greatest first; what is no number counts as the greatest, so that it is not lost. */
function chooseMost(numbers: Float32Array, count: number): number[] {
  const key = (place: number) => (Number.isNaN(numbers[place]!) ? Infinity : numbers[place]!);
  const places = Array.from(numbers, (_, place) => place);
  places.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    return x === y ? a - b : y - x;
  });
  return places.slice(0, count);
}

/** The sum of some rows, each times its share: in float64, and rounded once. */
function addShares(
  results: Float32Array,
  places: Int32Array,
  shares: Float64Array,
  width: number,
  { out }: { readonly out: Float32Array },
): void {
  for (let i = 0; i < width; i++) {
    let sum = 0;
    for (let k = 0; k < places.length; k++) sum += shares[k]! * results[places[k]! * width + i]!;
    out[i] = sum;
  }
}
