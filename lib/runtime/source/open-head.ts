import { pinInputs } from '../../compute/run.js';
import type { OwnedFloat32Array } from '../../matrix/arrays.js';
import { checkArray } from '../../matrix/validate.js';
import { allocating } from '../../messages/allocating.js';
import { INSPECT } from '../../messages/objects.js';
import { refuseSurplus } from '../../messages/surplus.js';
import { formatBytes } from '../../messages/units.js';
import type { Head } from '../blocks/head.js';
import { Lora } from '../blocks/lora.js';
import { Plan } from '../blocks/plan.js';
import { showInputs, type Tap } from '../blocks/tap.js';
import { CHUNK } from '../decoder.js';
import { OpenPart, type PartContext } from './open-part.js';
import { checkPartRun, checkRows, type PartRun } from './texts.js';

/** How a head runs. */
export interface HeadRun extends PartRun {
  /** Where the logits go, `[rows, vocabSize]`: it is also what the call returns. @default a new array */
  readonly out?: Float32Array | undefined;
}

/** Rows whose inputs are shown at once, where nothing is multiplied: many texts in turn leave as much garbage each. */
const SHOWN = 32;

/** A head, and what it computes with. */
export interface HeadInside extends Pick<PartContext<Head>, 'config' | 'machine'> {
  readonly head: Head;
}

/** What follows the blocks, with its weights in memory: a norm, and the linear layer that gives logits. */
export class OpenHead extends OpenPart {
  readonly #context: PartContext<Head>;

  /** @internal Use `BlockSource.head`. */
  constructor(head: Head, context: PartContext<Head>) {
    super(context);
    this.#context = context;
    context.holding.add(this, head);
  }

  /** Bytes that the weights take in memory; 0 once it is closed. */
  get memoryUsage(): number {
    return this.#head?.bytes ?? 0;
  }

  /**
   * Logits of rows that came out of the last block, `[rows, hiddenSize]`, of whatever texts: `[rows, vocabSize]`. Rows are independent:
   * `text.subarray(-hiddenSize)` gives those of the token that comes next.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_INVALID_OPTION`, `ERR_OUT_OF_MEMORY`, `ERR_CLOSED`; the signal's reason
   */
  async forward(x: Float32Array, run?: HeadRun & { readonly out?: undefined }): Promise<OwnedFloat32Array>;
  async forward(x: Float32Array, run: HeadRun): Promise<Float32Array>;
  async forward(x: Float32Array, run: HeadRun = {}): Promise<Float32Array> {
    refuseSurplus(arguments.length, 2, 'head.forward(x, run)');
    return this.#context.lifetime.run(() => this.#forward(x, run));
  }

  /**
   * The head itself, and what it computes with, until it is closed.
   *
   * @throws {HqqError} `ERR_CLOSED`
   * @internal
   */
  get inside(): HeadInside {
    const { lifetime, config, machine } = this.#context;
    lifetime.checkOpen();
    return { head: this.#head!, config, machine };
  }

  /** @internal */
  [INSPECT](): string {
    return `OpenHead { ${formatBytes(this.memoryUsage)} }`;
  }

  /** Undefined once it is closed. */
  get #head(): Head | undefined {
    return this.#context.holding.of(this);
  }

  /**
   * Shows what goes into the linear layer, without computing logits, which are most of the work: `x` is as in `forward`.
   *
   * @throws {HqqError} as `forward`, and what a tap throws
   */
  async inputs(x: Float32Array, tap: Tap, run: Pick<HeadRun, 'signal'> = {}): Promise<void> {
    refuseSurplus(arguments.length, 3, 'head.inputs(x, tap, run)');
    return this.#context.lifetime.run(async () => {
      checkPartRun({ ...run, tap }, []);
      const { config, machine } = this.#context;
      const { hiddenSize } = config;
      const rows = checkRows(x, 'x', hiddenSize);
      pinInputs(x);
      const normed = new Float32Array(Math.min(rows, SHOWN) * hiddenSize);
      for (let at = 0; at < rows; at += SHOWN) {
        const end = Math.min(at + SHOWN, rows);
        const input = normed.subarray(0, (end - at) * hiddenSize);
        const plan = new Plan(machine.threads);
        this.#head!.addNorm(plan, x.subarray(at * hiddenSize, end * hiddenSize), end - at, input);
        await plan.run(machine.backend, run);
        await showInputs(tap, [this.#head!.input(input, end - at)]);
      }
    });
  }

  async #forward(x: Float32Array, run: HeadRun): Promise<Float32Array> {
    checkPartRun(run, ['out']);
    const { signal, tap } = run;
    const head = this.#head!;
    const { config, machine, adapters } = this.#context;
    const { hiddenSize, vocabSize } = config;
    const rows = checkRows(x, 'x', hiddenSize);
    signal?.throwIfAborted();
    const out = run.out ?? allocating('the logits', () => new Float32Array(rows * vocabSize));
    checkArray(out, 'out', 'Float32Array', rows * vocabSize, `for ${rows} x ${vocabSize} logits`);
    pinInputs(x, ...(run.out ? [out] : []));
    const normed = new Float32Array(Math.min(rows, CHUNK) * hiddenSize);
    for (let at = 0; at < rows; at += CHUNK) {
      const end = Math.min(at + CHUNK, rows);
      const input = normed.subarray(0, (end - at) * hiddenSize);
      const plan = new Plan(machine.threads);
      const logits = out.subarray(at * vocabSize, end * vocabSize);
      const lora = Lora.of([{ rows: end - at, adapters }]);
      head.addTo(plan, x.subarray(at * hiddenSize, end * hiddenSize), end - at, input, logits, lora);
      await plan.run(machine.backend, { signal });
      if (tap) await showInputs(tap, [head.input(input, end - at)]);
    }
    return out;
  }
}

/** The head for some of the tokens. */
export interface HeadPart {
  readonly from: number;
  readonly tokens: number;
  /** Gives logits `[rows, tokens]`. */
  readonly head: OpenHead;
}
