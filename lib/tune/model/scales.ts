import { provide } from '../../backend/js/backend.js';
import { fakeQuantizeGradient } from '../../backend/js/gradients/fake-quantize.js';
import { type Machine, runTask } from '../../compute/run.js';
import { inTurns, type Steps } from '../../files/event-loop.js';
import { FORMATS } from '../../matrix/format.js';
import type { Floats } from '../tape/spans.js';

provide({ fakeQuantizeGradient });

/** A linear layer on codes that stay as they are. */
export interface CodedLayer {
  /** As the runtime calls it. */
  readonly module: string;
  /** Of the grouped matrix: each row is a group on axis 1, each column on axis 0. */
  readonly rows: number;
  readonly cols: number;
  readonly axis: 0 | 1;
  /** `[rows, cols]` */
  codes(): Promise<Uint8Array>;
  /** `[groups]`: as they are at the start. */
  readonly scale: Floats;
  readonly zero: Floats;
  /** Whether zeros may be any number: others stay as they are. */
  readonly movesZero: boolean;
  /** Scales and zeros as they are when they are stored and read again. */
  stored(scale: Floats, zero: Floats): Promise<{ readonly scale: Floats; readonly zero: Floats }>;
}

/** Bytes as codes. */
const BYTES = FORMATS.findIndex(({ codeBits, wordBytes }) => codeBits === 8 && wordBytes === 1);

/** How much of the mean gradient, and of its mean square, stays from step to step. */
const STAY = 0.9;
const STAY_SQUARE = 0.95;

/** Groups that are moved between turns. */
const AT_ONCE = 1 << 13;

/** Scales and zeros of a layer on their way: a factor and a shift for each group, moved by Adam. */
export class MovingScales {
  readonly layer: CodedLayer;
  readonly #factor: Moving;
  readonly #shift: Moving | undefined;
  #known: { readonly scale: Floats; readonly zero: Floats } | undefined;

  constructor(layer: CodedLayer) {
    this.layer = layer;
    this.#factor = new Moving(layer.scale.length, 1);
    this.#shift = layer.movesZero ? new Moving(layer.zero.length, 0) : undefined;
  }

  /** As they are, not rounded as they will be stored. */
  get moved(): { readonly scale: Floats; readonly zero: Floats } {
    const { scale, zero } = this.layer;
    const shift = this.#shift?.values;
    return {
      scale: scale.map((value, g) => value * this.#factor.values[g]!),
      zero: shift === undefined ? zero.slice() : zero.map((value, g) => value + shift[g]!),
    };
  }

  /** Writes the weights that codes, scales and zeros as stored come to. */
  async weights(out: Floats, { backend, threads, signal }: Machine): Promise<void> {
    const { layer } = this;
    const { rows, cols, axis } = layer;
    const { scale, zero } = this.moved;
    this.#known = await layer.stored(scale, zero);
    const form = { format: BYTES, rows, cols, step: rows, axis, dtype: 0, roundEach: false } as const;
    const args = { ...form, ...this.#known, packed: await layer.codes(), out, threads };
    await runTask(backend, 'dequantize', args, { signal });
  }

  /** A step against the gradient of the weights that `weights` has written last. */
  async step(gradient: Floats, rate: number, { backend, threads, signal }: Machine): Promise<void> {
    const { layer } = this;
    const { rows, cols, axis } = layer;
    const none = new Float32Array(0);
    const [scaleGradient, zeroGradient] = [new Float32Array(layer.scale.length), new Float32Array(layer.zero.length)];
    const args = {
      ...{ rows, cols, axis, maxCode: 255, weights: none, offsets: none, ...this.#known!, gradient },
      ...{
        codes: await layer.codes(),
        weightGradient: none,
        offsetGradient: none,
        scaleGradient,
        zeroGradient,
        threads,
      },
    };
    await runTask(backend, 'fakeQuantizeGradient', args, { signal });
    const ofFactor = scaleGradient.map((value, g) => value * layer.scale[g]!);
    await inTurns(this.#factor.step(ofFactor, rate), signal);
    if (this.#shift) await inTurns(this.#shift.step(zeroGradient, rate), signal);
  }
}

/** Numbers that Adam moves (arXiv 1412.6980). */
class Moving {
  readonly values: Float32Array;
  readonly #mean: Float32Array;
  readonly #square: Float32Array;
  #steps = 0;

  constructor(count: number, start: number) {
    this.values = new Float32Array(count).fill(start);
    this.#mean = new Float32Array(count);
    this.#square = new Float32Array(count);
  }

  *step(gradient: Floats, rate: number): Steps<void> {
    this.#steps++;
    const [mean, square] = [1 - STAY ** this.#steps, 1 - STAY_SQUARE ** this.#steps];
    for (let i = 0; i < gradient.length; i++) {
      const own = gradient[i]!;
      this.#mean[i] = STAY * this.#mean[i]! + (1 - STAY) * own;
      this.#square[i] = STAY_SQUARE * this.#square[i]! + (1 - STAY_SQUARE) * own * own;
      const size = Math.sqrt(this.#square[i]! / square);
      if (size > 0) this.values[i] = this.values[i]! - (rate * (this.#mean[i]! / mean)) / size;
      if (i % AT_ONCE === 0) yield;
    }
  }
}
