import { provide } from '../../backend/js/backend.js';
import { ENCODER_LAYERS } from '../../backend/js/encoder-layers.js';
import { KEY_STRIP } from '../../matrix/constants.js';
import { allocating } from '../../messages/allocating.js';
import { addLinears, type Linear, type NamedLinear } from '../blocks/linear.js';
import { Plan } from '../blocks/plan.js';
import { positionsFrom } from '../blocks/rows.js';
import { showInputs, type Tap } from '../blocks/tap.js';
import type { Machine } from '../pass.js';
import type { EncoderConfig } from './encoder-config.js';
import type { ENCODER_LINEARS } from './encoder-tensors.js';

provide(ENCODER_LAYERS);

/** LayerNorm. */
export interface LayerNorm {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
  readonly epsilon: number;
}

/** Its layers, as checkpoints call them, as the tap does. */
type EncoderLinears = { readonly [K in keyof typeof ENCODER_LINEARS]: NamedLinear };

interface EncoderBlockParts {
  readonly linears: EncoderLinears;
  readonly attentionNorm: LayerNorm;
  readonly mlpNorm: LayerNorm;
}

/** How a block runs. */
export interface EncoderRun {
  readonly signal?: AbortSignal | undefined;
  readonly tap?: Tap | undefined;
}

const NO_META = new Float32Array(0);

/** What a block reads and writes beside the rows that flow through it. */
export class EncoderFrame {
  /** Out of q, k and v. */
  readonly qkv: readonly [queries: Float32Array, keys: Float32Array, values: Float32Array];
  /** Into o. */
  readonly attended: Float32Array;
  /** Into the MLP. */
  readonly normed: Float32Array;
  /** Out of up, activated: into down. */
  readonly inner: Float32Array;
  /** Out of o, and out of down. */
  readonly change: Float32Array;
  /** Keys and values as attention keeps them, of one text after the other. */
  readonly kept: readonly [keys: Float32Array, values: Float32Array];

  /**
   * @param rows How many positions go through the block at once.
   * @param longest How many of them are of one text, at most.
   */
  constructor({ hiddenSize, intermediateSize }: EncoderConfig, rows: number, longest: number) {
    const floats = (count: number) => allocating('the activations', () => new Float32Array(count));
    const wide = () => floats(rows * hiddenSize);
    this.qkv = [wide(), wide(), wide()];
    [this.attended, this.normed, this.change] = [wide(), wide(), wide()];
    this.inner = floats(rows * intermediateSize);
    const capacity = Math.ceil(longest / KEY_STRIP) * KEY_STRIP;
    this.kept = [floats(capacity * hiddenSize), floats(capacity * hiddenSize)];
  }
}

/** One block of an encoder: attention to all of the text, and an MLP, each added to what comes in and normed. */
export class EncoderBlock {
  readonly config: EncoderConfig;
  readonly machine: Machine;
  readonly #parts: EncoderBlockParts;

  constructor(config: EncoderConfig, machine: Machine, parts: EncoderBlockParts) {
    this.config = config;
    this.machine = machine;
    this.#parts = parts;
  }

  /** Its linear layers, in the order in which they are computed. */
  get linears(): readonly NamedLinear[] {
    const { q, k, v, o, up, down } = this.#parts.linears;
    return [q, k, v, o, up, down];
  }

  /** The same block, but for some of its linear layers, by module. */
  with(replaced: ReadonlyMap<string, Linear>): EncoderBlock {
    const entries = Object.entries(this.#parts.linears).map(([name, { module, linear }]) => {
      return [name, { module, linear: replaced.get(module) ?? linear }];
    });
    const linears = Object.fromEntries(entries) as EncoderLinears;
    return new EncoderBlock(this.config, this.machine, { ...this.#parts, linears });
  }

  /** Runs a text, `[rows, hiddenSize]`, in place. What a tap is shown is valid until it returns. */
  async run(hidden: Float32Array, { signal, tap }: EncoderRun = {}): Promise<void> {
    signal?.throwIfAborted();
    const rows = hidden.length / this.config.hiddenSize;
    const { q, k, v, o, up, down } = this.#parts.linears;
    const show = async (x: Float32Array, layers: readonly NamedLinear[]) => {
      if (tap)
        await showInputs(
          tap,
          layers.map(({ module }) => ({ module, rows, x })),
        );
    };
    await show(hidden, [q, k, v]);
    const frame = new EncoderFrame(this.config, rows, rows);
    const plan = new Plan(this.machine.threads);
    this.addTo(plan, hidden, frame, [rows]);
    await plan.run(this.machine.backend, { signal });
    await show(frame.attended, [o]);
    await show(frame.normed, [up]);
    await show(frame.inner, [down]);
  }

  /**
   * Adds the block to a plan: it reads and writes `hidden`.
   *
   * @param lengths Positions of each of the texts whose rows these are, one after the other.
   */
  addTo(plan: Plan, hidden: Float32Array, frame: EncoderFrame, lengths: readonly number[]): void {
    const { attentionNorm, mlpNorm, linears } = this.#parts;
    const { hiddenSize, activation } = this.config;
    const { qkv, attended, change, normed, inner } = frame;
    const rows = hidden.length / hiddenSize;
    const { q, k, v, o, up, down } = linears;
    const all = [q, k, v].map(({ linear }) => linear);
    addLinears(plan, all, hidden, rows, qkv);
    let first = 0;
    for (const length of lengths) this.#addAttention(plan, frame, first, (first += length));
    o.linear.addTo(plan, attended, rows, change);
    addNormed(plan, hidden, change, attentionNorm, normed);
    up.linear.addTo(plan, normed, rows, inner);
    plan.add(24 * inner.length, (threads) => [{ operation: activation, args: { x: inner, threads } }]);
    down.linear.addTo(plan, inner, rows, change);
    addNormed(plan, normed, change, mlpNorm, hidden);
  }

  /**
   * Every row sees all of them. The operation lets a row see what comes before its position: so keys and values are written first, by
   * rows that see themselves alone, and then all rows are where the last one is, which is written again, and last.
   */
  #addAttention(plan: Plan, frame: EncoderFrame, from: number, to: number): void {
    const { hiddenSize, heads, headDim } = this.config;
    const rows = to - from;
    const [q, k, v, out] = [...frame.qkv, frame.attended].map((x) => x.subarray(from * hiddenSize, to * hiddenSize));
    const [keys, values] = frame.kept;
    const segment = { capacity: keys.length / hiddenSize, keys, values, keyMeta: NO_META, valueMeta: NO_META };
    const shape = { rows, heads, kvHeads: heads, headDim, scale: 1 / Math.sqrt(headDim), softcap: 0, cacheType: 0 };
    const all = { ...shape, q: q!, k: k!, v: v!, out: out!, segments: [segment] };
    const inPlace = { ...all, positions: positionsFrom(0, rows), window: 1 };
    const together = { ...all, positions: new Int32Array(rows).fill(rows - 1), window: 0 };
    for (const args of [inPlace, together])
      plan.add(Infinity, (threads) => [{ operation: 'attention', args: { ...args, threads } }]);
  }
}

/** `out` = the norm of `x + change`; `change` holds the sum after. */
function addNormed(plan: Plan, x: Float32Array, change: Float32Array, norm: LayerNorm, out: Float32Array): void {
  plan.add(x.length, (threads) => [{ operation: 'add', args: { x, to: change, threads } }]);
  addLayerNorm(plan, change, norm, out);
}

/** `out` = the norm of each row of `x`, which it may be. */
export function addLayerNorm(
  plan: Plan,
  x: Float32Array,
  { weight, bias, epsilon }: LayerNorm,
  out: Float32Array,
): void {
  const [cols, rows] = [weight.length, x.length / weight.length];
  plan.add(4 * x.length, (threads) => [
    { operation: 'layerNorm', args: { rows, cols, epsilon, x, weight, bias, out, threads } },
  ]);
}
