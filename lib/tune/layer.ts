import { provide } from '../backend/js/backend.js';
import { fakeQuantize, fakeQuantizeStep } from '../backend/js/gradients/fake-quantize.js';
import { type Machine, runTask } from '../compute/run.js';
import { inTurns, type Steps } from '../files/event-loop.js';
import { allocating } from '../messages/allocating.js';
import type { TunedResult, TunedStart } from '../schemes/tuned.js';
import { ZERO_KINDS } from '../solvers/solvers.js';

provide({ fakeQuantize, fakeQuantizeStep });

/** How far factors of scales may come from 1, and zeros from where they were, in codes. */
const [FACTOR_RANGE, SHIFT_RANGE] = [0.5, 1];

/** Weights that are looked at between turns. */
const AT_ONCE = 1 << 16;

const NO_CODES = new Uint8Array(0);

/** Which layer is tuned. */
interface LayerNames {
  /** Name of its weight, in files. */
  readonly weight: string;
  /** What the runtime calls it. */
  readonly module: string;
}

/** Weights that are pruned have no gradient: without an offset each has the code of its zero, wherever that is moved to. */
function* withoutZeros(gradient: Float32Array, weights: Float32Array): Steps<void> {
  for (let i = 0; i < weights.length; i++) {
    if (weights[i] === 0) gradient[i] = 0;
    if (i % AT_ONCE === 0) yield;
  }
}

/** A linear layer whose codes, scales and zeros are being tuned: a rounding offset for each weight, a factor and a shift for each group. */
export class TunedLayer {
  readonly weight: string;
  readonly module: string;
  /** The weights that the block computes with: those of the codes as they are. Written by `begin` and `step`. */
  readonly values: Float32Array<ArrayBuffer>;
  readonly #start: TunedStart;
  readonly #offsets: Float32Array<ArrayBuffer>;
  readonly #scale: Float32Array<ArrayBuffer>;
  readonly #zero: Float32Array<ArrayBuffer>;
  readonly #factor: Float32Array<ArrayBuffer>;
  readonly #shift: Float32Array<ArrayBuffer>;
  #isMoved = false;

  constructor({ weight, module }: LayerNames, start: TunedStart) {
    this.#start = start;
    this.weight = weight;
    this.module = module;
    const { length } = start.weights;
    [this.values, this.#offsets] = allocating('the weights of a layer that is tuned', () => [
      new Float32Array(length),
      new Float32Array(length),
    ]);
    this.#scale = Float32Array.from(start.scale);
    this.#zero = Float32Array.from(start.zero);
    this.#factor = new Float32Array(this.#scale.length).fill(1);
    this.#shift = new Float32Array(this.#zero.length);
  }

  /** Whether a step was made. */
  get isMoved(): boolean {
    return this.#isMoved;
  }

  /** What the solver made of it, before any step, in memory of its own. */
  async solved(machine: Machine): Promise<TunedResult> {
    const { solved } = this.#start;
    if (solved !== undefined) return solved;
    const { chosen, values } = await this.finish(machine);
    const { codes, scale, zero } = chosen;
    return { chosen: { codes, scale: scale.slice(), zero: zero.slice() }, values: values.slice() };
  }

  /** Fills `values` with what the codes are before the first step. */
  async begin(machine: Machine): Promise<void> {
    await this.#encode(this.#scale, this.#zero, NO_CODES, machine);
  }

  /** A step of size `rate` against the sign of the gradient of `values`, and `values` anew. Of a layer that is pruned the gradient is changed. */
  async step(gradient: Float32Array, rate: number, machine: Machine): Promise<void> {
    const { zeroPoint, scale, zero, weights, sparse, codesOnly } = this.#start;
    if (sparse) await inTurns(withoutZeros(gradient, weights), machine.signal);
    const levelStep = codesOnly ? 0 : rate;
    const args = {
      ...{ ...this.#args, scale: this.#scale, zero: this.#zero, startScale: scale, startZero: zero },
      ...{ factor: this.#factor, shift: this.#shift, zeroKind: ZERO_KINDS.indexOf(zeroPoint) },
      ...{ offsetStep: rate, factorStep: levelStep, shiftStep: levelStep },
      ...{ factorRange: FACTOR_RANGE, shiftRange: SHIFT_RANGE },
      ...{ gradient, out: this.values, threads: machine.threads },
    };
    await runTask(machine.backend, 'fakeQuantizeStep', args, machine);
    this.#isMoved = true;
  }

  /** The layer as it will be stored: scales and zeros are rounded, and codes chosen after. Its numbers are `values`. */
  async finish(machine: Machine): Promise<TunedResult> {
    const { scale, zero, store } = await this.#start.settle(this.#scale, this.#zero, machine);
    const codes = allocating('the codes of a layer', () => new Uint8Array(this.values.length));
    await this.#encode(scale, zero, codes, machine);
    return store(codes, this.values);
  }

  /** Fills `values`, and `codes` where there is room for them. */
  async #encode(scale: Float32Array, zero: Float32Array, codes: Uint8Array, machine: Machine): Promise<void> {
    const args = { ...this.#args, scale, zero, out: this.values, codes, threads: machine.threads };
    await runTask(machine.backend, 'fakeQuantize', args, machine);
  }

  get #args() {
    const { rows, cols, axis, maxCode, weights } = this.#start;
    return { rows, cols, axis, maxCode, weights, offsets: this.#offsets };
  }
}
