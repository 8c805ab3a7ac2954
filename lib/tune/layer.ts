import { provide } from '../backend/js/backend.js';
import { fakeQuantize, fakeQuantizeStep } from '../backend/js/gradients/fake-quantize.js';
import type { Machine } from '../calibrate/refine/grams.js';
import { roundThrough } from '../compute/floats.js';
import { metaJob } from '../compute/metadata.js';
import { runTask } from '../compute/run.js';
import type { ChosenCodes } from '../containers/grid.js';
import { inTurns, type Steps } from '../files/event-loop.js';
import type { OwnedFloat32Array } from '../matrix/arrays.js';
import { highestCode, type ResolvedQuantConfig } from '../matrix/config.js';
import type { DType } from '../matrix/dtype.js';
import { geometryOf } from '../matrix/geometry.js';
import type { QuantizedTensor } from '../matrix/weight.js';
import { allocating } from '../messages/allocating.js';
import type { PlannedLayer } from '../schemes/scheme.js';
import { ZERO_KINDS } from '../solvers/solvers.js';

provide({ fakeQuantize, fakeQuantizeStep });

/** How far factors of scales may come from 1, and zeros from where they were, in codes. */
const [FACTOR_RANGE, SHIFT_RANGE] = [0.5, 1];

/** Weights that are looked at between turns. */
const AT_ONCE = 1 << 16;

const NO_CODES = new Uint8Array(0);

/** How scales and zeros of a layer are stored. */
export interface StoredAs {
  readonly metaDtype: DType;
  /** What float zeros are stored less of, rounded after that. */
  readonly zeroFrom: number;
}

/** The same of a layer that has such scales and zeros, which may decide it. */
export type StoredAsOf = (layer: PlannedLayer, scales: Pick<ChosenCodes, 'scale' | 'zero'>) => StoredAs;

/** A layer that is tuned, and how it will be stored. */
interface LayerStart {
  /** Name of its weight, in files. */
  readonly weight: string;
  /** What the runtime calls it. */
  readonly module: string;
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  readonly config: ResolvedQuantConfig & { readonly groupSize: number };
  readonly storedAs: StoredAs;
  /** `[outFeatures, inFeatures]` */
  readonly floats: Float32Array;
  /** What the solver made of it. */
  readonly solved: Pick<QuantizedTensor, 'scale' | 'zero'>;
}

/** What a layer came to. */
export interface FinishedLayer {
  readonly chosen: ChosenCodes;
  /** The numbers of the codes, `[outFeatures, inFeatures]`. */
  readonly values: Float32Array<ArrayBuffer>;
}

/** Scales and zeros of the types that they have and are stored in; and, `stored`, as they are read again: of bytes, what these stand for. */
export async function storedScales(
  ofScale: OwnedFloat32Array,
  ofZero: OwnedFloat32Array,
  config: ResolvedQuantConfig,
  { metaDtype, zeroFrom }: StoredAs,
  machine: Machine,
): Promise<Pick<ChosenCodes, 'scale' | 'zero'> & { readonly stored: Pick<ChosenCodes, 'scale' | 'zero'> }> {
  const scale = roundThrough(roundThrough(ofScale, config.scaleDtype), metaDtype);
  const zero = config.zeroPoint === 'float' ? roundZeros(ofZero, metaDtype, zeroFrom) : ofZero;
  if (config.metaBits !== 8) return { scale, zero, stored: { scale, zero } };
  const stored = { scale: scale.slice(), zero: zero.slice() };
  const { steps } = metaJob(stored.scale, stored.zero, config, machine.threads);
  await runTask(machine.backend, 'sequence', { steps }, machine);
  return { scale, zero, stored };
}

/** Weights that are pruned have no gradient: without an offset each has the code of its zero, wherever that is moved to. */
function* withoutZeros(gradient: Float32Array, floats: Float32Array): Steps<void> {
  for (let i = 0; i < floats.length; i++) {
    if (floats[i] === 0) gradient[i] = 0;
    if (i % AT_ONCE === 0) yield;
  }
}

function roundZeros(zero: OwnedFloat32Array, dtype: DType, from: number): OwnedFloat32Array {
  if (from === 0) return roundThrough(zero, dtype);
  const less = zero.map((value) => value - from);
  return roundThrough(less, dtype).map((value) => value + from);
}

/** A linear layer whose codes, scales and zeros are being tuned: a rounding offset for each weight, a factor and a shift for each group. */
export class TunedLayer {
  readonly weight: string;
  readonly module: string;
  /** The weights that the block computes with: those of the codes as they are. Written by `begin` and `step`. */
  readonly values: Float32Array<ArrayBuffer>;
  readonly #start: LayerStart;
  readonly #offsets: Float32Array<ArrayBuffer>;
  readonly #scale: Float32Array<ArrayBuffer>;
  readonly #zero: Float32Array<ArrayBuffer>;
  readonly #factor: Float32Array<ArrayBuffer>;
  readonly #shift: Float32Array<ArrayBuffer>;
  #isMoved = false;

  constructor(start: LayerStart) {
    this.#start = start;
    this.weight = start.weight;
    this.module = start.module;
    const { length } = start.floats;
    [this.values, this.#offsets] = allocating('the weights of a layer that is tuned', () => [
      new Float32Array(length),
      new Float32Array(length),
    ]);
    this.#scale = Float32Array.from(start.solved.scale);
    this.#zero = Float32Array.from(start.solved.zero);
    this.#factor = new Float32Array(this.#scale.length).fill(1);
    this.#shift = new Float32Array(this.#zero.length);
  }

  /** Whether a step was made. */
  get isMoved(): boolean {
    return this.#isMoved;
  }

  /** Fills `values` with what the codes are before the first step. */
  async begin(machine: Machine): Promise<void> {
    await this.#encode(this.#scale, this.#zero, NO_CODES, machine);
  }

  /** A step of size `rate` against the sign of the gradient of `values`, and `values` anew. Of a layer that is pruned the gradient is changed. */
  async step(gradient: Float32Array, rate: number, machine: Machine): Promise<void> {
    const { config, solved, floats } = this.#start;
    if (config.prune !== 0) await inTurns(withoutZeros(gradient, floats), machine.signal);
    const args = {
      ...{ ...this.#args, scale: this.#scale, zero: this.#zero, startScale: solved.scale, startZero: solved.zero },
      ...{ factor: this.#factor, shift: this.#shift, zeroKind: ZERO_KINDS.indexOf(config.zeroPoint) },
      ...{ offsetStep: rate, factorStep: rate, shiftStep: rate, factorRange: FACTOR_RANGE, shiftRange: SHIFT_RANGE },
      ...{ gradient, out: this.values, threads: machine.threads },
    };
    await runTask(machine.backend, 'fakeQuantizeStep', args, machine);
    this.#isMoved = true;
  }

  /** The layer as it will be stored: scales and zeros are rounded, and codes chosen after. */
  async finish(machine: Machine): Promise<FinishedLayer> {
    const { config, storedAs, floats } = this.#start;
    const { scale, zero, stored } = await storedScales(this.#scale, this.#zero, config, storedAs, machine);
    const codes = allocating('the codes of a layer', () => new Uint8Array(floats.length));
    await this.#encode(stored.scale, stored.zero, codes, machine);
    return { chosen: { codes, scale, zero }, values: this.values };
  }

  /** Fills `values`, and `codes` where there is room for them. */
  async #encode(scale: Float32Array, zero: Float32Array, codes: Uint8Array, machine: Machine): Promise<void> {
    const args = { ...this.#args, scale, zero, out: this.values, codes, threads: machine.threads };
    await runTask(machine.backend, 'fakeQuantize', args, machine);
  }

  get #args() {
    const { shape, config, floats } = this.#start;
    const { rows, cols } = geometryOf(shape, config);
    const { axis, nbits } = config;
    return { rows, cols, axis, maxCode: highestCode(nbits), weights: floats, offsets: this.#offsets };
  }
}
