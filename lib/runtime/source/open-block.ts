import { QuantizedLinear } from '../../compute/linear.js';
import { checkRunOptions, pinInputs } from '../../compute/run.js';
import type { OwnedFloat32Array } from '../../matrix/arrays.js';
import { checkArray, checkObject, isArray } from '../../matrix/validate.js';
import type { QuantizedTensorLike, RunOptions } from '../../matrix/weight.js';
import { HqqError, show } from '../../messages/errors.js';
import { INSPECT } from '../../messages/objects.js';
import { suggestion } from '../../messages/suggestion.js';
import { refuseSurplus } from '../../messages/surplus.js';
import { formatBytes } from '../../messages/units.js';
import { type Block, blockName } from '../blocks/block.js';
import type { KvCache } from '../blocks/cache.js';
import { CodedLinear, DenseLinear, type Linear } from '../blocks/linear.js';
import { Lora } from '../blocks/lora.js';
import { Plan } from '../blocks/plan.js';
import type { Rope } from '../blocks/rope.js';
import { makeRows, positionsFrom } from '../blocks/rows.js';
import { showInputs } from '../blocks/tap.js';
import { CHUNK } from '../decoder.js';
import { OpenPart, type PartContext } from './open-part.js';
import type { Desk } from './shelf.js';
import { checkPartRun, type PartRun, resultsOf, togetherOf } from './texts.js';

/** How a block runs. */
export interface BlockRun extends PartRun {
  /**
   * Where the results go, one array a text, which may be the text itself: they are also what the call returns.
   *
   * @default new arrays
   */
  readonly out?: readonly Float32Array[] | undefined;
  /** Called after every text with the rows that are done, and all. An error that it throws ends the call. */
  readonly onProgress?: ((progress: { readonly rowsDone: number; readonly rowsTotal: number }) => void) | undefined;
}

/** A linear layer of a block. */
export interface BlockLinear {
  /** As checkpoints call it, and the tap: `model.layers.0.self_attn.q_proj`. */
  readonly module: string;
  /** Of its weight. */
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  /** Whether its weight is codes, which are multiplied as they are. */
  readonly quantized: boolean;
  /** Whether something is added to its results. */
  readonly bias: boolean;
}

interface BlockContext extends PartContext<Block> {
  readonly ropes: readonly Rope[];
  readonly desk: Desk;
  readonly activations: 'float32' | 'int8';
}

/** A block, and what it computes with. */
export interface BlockInside extends Pick<BlockContext, 'config' | 'machine' | 'ropes'> {
  readonly block: Block;
}

/** A decoder block whose weights are in memory. Any number of calls may be under way at once. */
export class OpenBlock extends OpenPart {
  /** Which of the model's blocks it is, from 0. */
  readonly index: number;
  /** As checkpoints call it: `model.layers.0`. */
  readonly name: string;
  /** Its linear layers, in the order in which they are computed. */
  readonly linears: readonly BlockLinear[];
  readonly #context: BlockContext;

  /** @internal Use `BlockSource.block`. */
  constructor(index: number, block: Block, context: BlockContext) {
    super(context);
    this.index = index;
    this.name = blockName(index);
    this.#context = context;
    context.holding.add(this, block);
    this.linears = Object.freeze(
      block.linears.map(({ module, linear }) => {
        const shape = Object.freeze([linear.outFeatures, linear.inFeatures] as const);
        const [quantized, bias] = [linear instanceof CodedLinear, linear.bias !== undefined];
        return Object.freeze({ module, shape, quantized, bias });
      }),
    );
  }

  /** Bytes that the weights take in memory; 0 once it is closed. */
  get memoryUsage(): number {
    return this.#block?.bytes.total ?? 0;
  }

  /**
   * Runs texts through the block, each by itself, from its position 0 on: `texts[i]` is `[rows, hiddenSize]`, what came out of the
   * block before (or `embed`), and so is the result. The bits are those of the whole model, however the rows are shared out to calls.
   *
   * Neither texts nor `out` may be written to until the promise settles, and the buffers of `out` can never be transferred afterwards.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT`, `ERR_INVALID_OPTION`, `ERR_OUT_OF_MEMORY`, `ERR_CLOSED`; the signal's reason, or what a
   *   tap throws (then `out` holds anything).
   */
  async forward(
    texts: readonly Float32Array[],
    run?: BlockRun & { readonly out?: undefined },
  ): Promise<OwnedFloat32Array[]>;
  async forward(texts: readonly Float32Array[], run: BlockRun): Promise<Float32Array[]>;
  async forward(texts: readonly Float32Array[], run: BlockRun = {}): Promise<Float32Array[]> {
    refuseSurplus(arguments.length, 2, 'block.forward(texts, run)');
    return this.#context.lifetime.run(() => this.#forward(texts, run));
  }

  /**
   * The weight of a linear layer, `[outFeatures, inFeatures]`, as a copy: dequantized, where it is quantized.
   *
   * @param module As `linears` calls it.
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a name that there is not; `ERR_OUT_OF_MEMORY`, `ERR_CLOSED`
   */
  async weight(module: string, run: RunOptions = {}): Promise<OwnedFloat32Array> {
    refuseSurplus(arguments.length, 2, 'block.weight(module, run)');
    checkRunOptions(run);
    const { threads = this.#context.machine.threads, signal } = run;
    return this.#context.lifetime.run(async () => {
      signal?.throwIfAborted();
      return this.#linear(module).weights({ signal, threads });
    });
  }

  /**
   * The same block with other weights in some of its linear layers, which keep their biases: what a solver has made of them. Both
   * blocks stay as they are, share what is alike, and are closed together. Of a block that nobody has any more, the garbage collector takes
   * the weights that were its own.
   *
   * @param weights By module, as `linears` calls it: a quantized tensor, or `[outFeatures, inFeatures]` numbers. Arrays of numbers are
   *   not copied.
   * @example const next = await block.replace({ [module]: await quantize({ data: await block.weight(module), shape }) });
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for a name that there is not, or a weight of another shape; `ERR_CLOSED`
   */
  async replace(
    weights: Readonly<Record<string, QuantizedTensorLike | Float32Array>>,
    run: RunOptions = {},
  ): Promise<OpenBlock> {
    refuseSurplus(arguments.length, 2, 'block.replace(weights, run)');
    checkObject(weights, 'the weights');
    checkRunOptions(run);
    return this.#context.lifetime.run(async () => {
      const replaced = new Map<string, Linear>();
      for (const [module, weight] of Object.entries(weights))
        replaced.set(module, await this.#make(module, weight, this.#linear(module), run));
      return new OpenBlock(this.index, this.#block!.with(replaced), this.#context);
    });
  }

  /**
   * The block itself, and what it computes with, until it is closed.
   *
   * @throws {HqqError} `ERR_CLOSED`
   * @internal
   */
  get inside(): BlockInside {
    const { lifetime, config, machine, ropes } = this.#context;
    lifetime.checkOpen();
    return { block: this.#block!, config, machine, ropes };
  }

  /** @internal */
  [INSPECT](): string {
    return `OpenBlock { ${this.name}, ${formatBytes(this.memoryUsage)} }`;
  }

  /** Undefined once it is closed. */
  get #block(): Block | undefined {
    return this.#context.holding.of(this);
  }

  async #forward(texts: readonly Float32Array[], run: BlockRun): Promise<Float32Array[]> {
    checkPartRun(run, ['out', 'onProgress']);
    const { signal, tap, onProgress } = run;
    const { config } = this.#context;
    const width = config.hiddenSize;
    signal?.throwIfAborted();
    const outs = [...resultsOf(texts, run.out, width)];
    pinInputs(...texts, ...(run.out ? outs : []));
    const rowsTotal = texts.reduce((sum, { length }) => sum + length / width, 0);
    let rowsDone = 0;
    await this.#context.desk.withCache(async (cache) => {
      for (const group of tap ? texts.map((_, i) => [i]) : togetherOf(texts, CHUNK * width)) {
        const own = group.map((i) => ({ text: texts[i]!, out: outs[i]!, rows: texts[i]!.length / width }));
        cache.truncate(0);
        await cache.extend(Math.max(...own.map(({ rows }) => rows)), () =>
          own.length === 1
            ? this.#runText(own[0]!.text, own[0]!.out, cache, { signal, tap })
            : this.#runTexts(own, cache, signal),
        );
        for (const { rows } of own) {
          rowsDone += rows;
          onProgress?.({ rowsDone, rowsTotal });
        }
      }
    });
    return outs;
  }

  async #runText(text: Float32Array, hidden: Float32Array, cache: KvCache, { signal, tap }: PartRun): Promise<void> {
    const { config, machine, adapters, ropes, desk } = this.#context;
    const block = this.#block!;
    const { hiddenSize: width } = config;
    const length = text.length / width;
    for (let at = 0; at < length; at += CHUNK) {
      const count = Math.min(CHUNK, length - at);
      const [from, to] = [at * width, (at + count) * width];
      if (hidden !== text) hidden.set(text.subarray(from, to), from);
      const own = { hidden: hidden.subarray(from, to), ropes: ropes.map((rope) => rope.rows(at, count, length)) };
      await desk.withFrame(count, async (frame) => {
        const plan = new Plan(machine.threads);
        const rows = { count, positions: positionsFrom(at, count), ...own };
        const lora = Lora.of([{ rows: count, adapters }]);
        block.addTo(plan, rows, frame, [{ rows: count, cache: cache.layer(0) }], lora);
        await plan.run(machine.backend, { signal });
        if (tap) await showInputs(tap, block.inputs(frame, count));
      });
    }
  }

  /** Short texts together: weights come from memory, or from the file, once for all. Each has the cache when its turn comes. */
  async #runTexts(
    texts: readonly { readonly text: Float32Array; readonly out: Float32Array; readonly rows: number }[],
    cache: KvCache,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { config, machine, adapters, ropes, desk } = this.#context;
    const count = texts.reduce((sum, { rows }) => sum + rows, 0);
    const all = makeRows(config, count);
    let at = 0;
    for (const { text, rows } of texts) {
      all.hidden.set(text, at * config.hiddenSize);
      all.positions.set(positionsFrom(0, rows), at);
      for (const [i, rope] of ropes.entries()) {
        const { cos, sin } = rope.rows(0, rows);
        const begin = (at * cos.length) / rows;
        all.ropes[i]!.cos.set(cos, begin);
        all.ropes[i]!.sin.set(sin, begin);
      }
      at += rows;
    }
    await desk.withFrame(count, async (frame) => {
      const plan = new Plan(machine.threads);
      const cached = texts.map(({ rows }) => ({ rows, cache: cache.layer(0) }));
      this.#block!.addTo(plan, all, frame, cached, Lora.of([{ rows: count, adapters }]));
      await plan.run(machine.backend, { signal });
    });
    at = 0;
    for (const { out } of texts) out.set(all.hidden.subarray(at, (at += out.length)));
  }

  #linear(module: string): Linear {
    const found = this.#block!.linears.find((linear) => linear.module === module);
    if (found) return found.linear;
    const names = this.linears.map((linear) => linear.module);
    const near = typeof module === 'string' ? suggestion(module, names) : '';
    const message = `Expected the name of a linear layer of ${this.name}, got ${show(module)}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', message + near);
  }

  async #make(
    module: string,
    weight: QuantizedTensorLike | Float32Array,
    { inFeatures, outFeatures, bias }: Linear,
    { signal, threads = this.#context.machine.threads }: RunOptions,
  ): Promise<Linear> {
    const shape = [outFeatures, inFeatures] as const;
    if (isArray(weight, 'Float32Array')) {
      checkArray(
        weight,
        `the weight of ${module}`,
        'Float32Array',
        outFeatures * inFeatures,
        `for ${shape.join(' x ')}`,
      );
      pinInputs(weight);
      return new DenseLinear(weight, shape, bias);
    }
    checkObject(weight, `the weight of ${module}`);
    const { shape: got } = weight;
    if (Array.isArray(got) && (got[0] !== outFeatures || got[1] !== inFeatures)) {
      const message = `Expected the weight of ${module} to be ${shape.join(' x ')}, got ${show(got)}.`;
      throw new HqqError('ERR_INVALID_ARGUMENT', message);
    }
    const { activations } = this.#context;
    return new CodedLinear(await QuantizedLinear.create(weight, { bias, activations, signal, threads }));
  }
}
