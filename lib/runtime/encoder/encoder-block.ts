import { inTurns } from '../../files/event-loop.js';
import { KEY_STRIP } from '../../matrix/constants.js';
import { allocating } from '../../messages/allocating.js';
import { addLinears, type Linear } from '../blocks/linear.js';
import { Plan } from '../blocks/plan.js';
import { positionsFrom } from '../blocks/rows.js';
import { showInputs, type Tap } from '../blocks/tap.js';
import type { Machine } from '../pass.js';
import type { EncoderConfig } from './encoder-config.js';
import type { ENCODER_LINEARS } from './encoder-tensors.js';
import { activate, normalizeRows } from './rows.js';

/** LayerNorm. */
export interface LayerNorm {
  readonly weight: Float32Array;
  readonly bias: Float32Array;
  readonly epsilon: number;
}

interface EncoderBlockParts {
  readonly linears: { readonly [K in keyof typeof ENCODER_LINEARS]: Linear };
  /** As checkpoints call them, as the tap does. */
  readonly modules: { readonly [K in keyof typeof ENCODER_LINEARS]: string };
  readonly attentionNorm: LayerNorm;
  readonly mlpNorm: LayerNorm;
}

/** How a block runs. */
export interface EncoderRun {
  readonly signal?: AbortSignal | undefined;
  readonly tap?: Tap | undefined;
}

const NO_META = new Float32Array(0);

/** One block of an encoder: attention to all of the text, and an MLP, each added to what comes in and normed. */
export class EncoderBlock {
  readonly #config: EncoderConfig;
  readonly #machine: Machine;
  readonly #parts: EncoderBlockParts;

  constructor(config: EncoderConfig, machine: Machine, parts: EncoderBlockParts) {
    this.#config = config;
    this.#machine = machine;
    this.#parts = parts;
  }

  /** Runs a text, `[rows, hiddenSize]`, in place. What a tap is shown is valid until it returns. */
  async run(hidden: Float32Array, { signal, tap }: EncoderRun = {}): Promise<void> {
    const { linears, modules, attentionNorm, mlpNorm } = this.#parts;
    const { hiddenSize, intermediateSize, activation } = this.#config;
    const rows = hidden.length / hiddenSize;
    const floats = (count: number) => allocating('the activations', () => new Float32Array(count));
    const [attended, change, inner] = [hiddenSize, hiddenSize, intermediateSize].map((width) => floats(rows * width));
    const show = async (x: Float32Array, names: readonly (keyof typeof ENCODER_LINEARS)[]) => {
      signal?.throwIfAborted();
      if (tap)
        await showInputs(
          tap,
          names.map((name) => ({ module: modules[name], rows, x })),
        );
    };
    const steps = async (add: (plan: Plan) => void) => {
      const plan = new Plan(this.#machine.threads);
      add(plan);
      await plan.run(this.#machine.backend, { signal });
    };
    const addChange = (plan: Plan) =>
      plan.add(hidden.length, (threads) => [{ operation: 'add', args: { x: change!, to: hidden, threads } }]);

    await show(hidden, ['q', 'k', 'v']);
    await steps((plan) => this.#addAttention(plan, hidden, attended!));
    await show(attended!, ['o']);
    await steps((plan) => {
      linears.o.addTo(plan, attended!, rows, change!);
      addChange(plan);
    });
    await inTurns(normalizeRows(hidden, attentionNorm), signal);
    await show(hidden, ['up']);
    await steps((plan) => linears.up.addTo(plan, hidden, rows, inner!));
    await inTurns(activate(inner!, activation), signal);
    await show(inner!, ['down']);
    await steps((plan) => {
      linears.down.addTo(plan, inner!, rows, change!);
      addChange(plan);
    });
    await inTurns(normalizeRows(hidden, mlpNorm), signal);
  }

  /**
   * Every row sees all of them. The operation lets a row see what comes before its position: so keys and values are written first, by
   * rows that see themselves alone, and then all rows are where the last one is, which is written again, and last.
   */
  #addAttention(plan: Plan, hidden: Float32Array, attended: Float32Array): void {
    const { hiddenSize, heads, headDim } = this.#config;
    const { q, k, v } = this.#parts.linears;
    const rows = hidden.length / hiddenSize;
    const floats = () => allocating('the activations', () => new Float32Array(hidden.length));
    const [queries, keys, values] = [floats(), floats(), floats()];
    addLinears(plan, [q, k, v], hidden, rows, [queries, keys, values]);
    const capacity = Math.ceil(rows / KEY_STRIP) * KEY_STRIP;
    const cache = () => allocating('keys and values', () => new Float32Array(capacity * hiddenSize));
    const shape = { rows, heads, kvHeads: heads, headDim, scale: 1 / Math.sqrt(headDim), softcap: 0, cacheType: 0 };
    const segment = { capacity, keys: cache(), values: cache(), keyMeta: NO_META, valueMeta: NO_META };
    const arrays = { q: queries, k: keys, v: values, segments: [segment], out: attended };
    const inPlace = { ...shape, ...arrays, positions: positionsFrom(0, rows), window: 1 };
    const together = { ...shape, ...arrays, positions: new Int32Array(rows).fill(rows - 1), window: 0 };
    for (const args of [inPlace, together])
      plan.add(Infinity, (threads) => [{ operation: 'attention', args: { ...args, threads } }]);
  }
}
