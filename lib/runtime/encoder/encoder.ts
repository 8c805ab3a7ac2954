import { join } from 'node:path';
import { activeBackend } from '../../backend/index.js';
import type { FilePath } from '../../files/path.js';
import { allocating } from '../../messages/allocating.js';
import { HqqError } from '../../messages/errors.js';
import { Closing } from '../../messages/objects.js';
import { openFolderModel } from '../../models/folder-model.js';
import type { Model } from '../../models/model.js';
import { Plan } from '../blocks/plan.js';
import { configIn } from '../config/config-in.js';
import { Lifetime } from '../lifetime.js';
import { type LoadLanguageModelOptions, resolveLoadOptions } from '../load-options.js';
import type { Machine } from '../pass.js';
import { checkIds, type TokenIds } from '../text/ids.js';
import { type ReadOptions, readLinear } from '../weights/linears.js';
import { addLayerNorm, EncoderBlock, type LayerNorm } from './encoder-block.js';
import { type EncoderConfig, isEncoder, readEncoderConfig } from './encoder-config.js';
import { type EncoderNames, encoderNames, TABLES } from './encoder-tensors.js';

/** How an encoder computes. */
export type EncoderOptions = Omit<LoadLanguageModelOptions, 'maxContext'>;

/** Whether a model is an encoder of the BERT family, by its config.json. @throws {HqqError} as `openModel` */
export async function isEncoderModel(path: FilePath): Promise<boolean> {
  const model = await openFolderModel(path);
  const { config } = model;
  await model.close();
  return isEncoder(config);
}

/** An encoder of the BERT family, float or quantized, whose blocks are read when they are asked for. */
export class Encoder extends Closing {
  /** Where it was found. */
  readonly path: string;
  readonly config: EncoderConfig;
  readonly #model: Model;
  readonly #names: EncoderNames;
  readonly #run: Omit<ReadOptions, 'signal'>;
  readonly #machine: Machine;
  readonly #coded: ReadonlySet<string>;
  readonly #lifetime = new Lifetime('the encoder');

  private constructor(model: Model, config: EncoderConfig, names: EncoderNames, run: Omit<ReadOptions, 'signal'>) {
    super();
    this.path = model.path;
    this.config = config;
    this.#model = model;
    this.#names = names;
    this.#run = run;
    this.#machine = { backend: activeBackend(), threads: run.threads! };
    this.#coded = new Set(model.tensors.flatMap(({ name, quantized }) => (quantized ? [name] : [])));
  }

  /**
   * @param adapter A folder of one that is merged into the model.
   * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`; `ERR_CHECKPOINT_CONTENT` for a model that is no encoder
   *   which runs
   */
  static async open(path: FilePath, options: EncoderOptions = {}, adapter?: string): Promise<Encoder> {
    const { activations, threads, signal } = resolveLoadOptions(options, ['activations', 'threads', 'signal']);
    signal?.throwIfAborted();
    const model = await openFolderModel(path, adapter);
    try {
      signal?.throwIfAborted();
      const config = readEncoderConfig(configIn(model), join(model.path, 'config.json'));
      return new Encoder(model, config, encoderNames(model, config), { activations, threads });
    } catch (error) {
      await model.close();
      throw error;
    }
  }

  /** Bytes of its tensors in the files. */
  get bytes(): number {
    return this.#model.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0);
  }

  /**
   * What a text is to the first block, `[ids.length, hiddenSize]`: the sum of its rows in the tables, normed.
   *
   * @throws {HqqError} `ERR_INVALID_ARGUMENT` for ids that are none, or more than `maxPositions`; `ERR_IO`, `ERR_CLOSED`; the signal's reason
   */
  async embed(ids: TokenIds, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<Float32Array> {
    const { vocabSize, hiddenSize, firstPosition, maxPositions } = this.config;
    checkIds(ids, vocabSize);
    if (ids.length === 0 || ids.length > maxPositions) {
      const message = `Expected 1 to ${maxPositions} token ids, which the model has positions for, got ${ids.length}.`;
      throw new HqqError('ERR_INVALID_ARGUMENT', message);
    }
    return this.#lifetime.run(async () => {
      const rows = [Array.from(ids), Array.from(ids, (_id, i) => firstPosition + i), Array.from(ids, () => 0)];
      const [sum, ...others] = rows.map(() =>
        allocating('the embeddings of the tokens', () => new Float32Array(ids.length * hiddenSize)),
      );
      for (const [t, out] of [sum!, ...others].entries()) {
        await this.#model.loadRows(this.#names.table(TABLES[t]!), rows[t]!, out, {
          signal,
          threads: this.#run.threads,
        });
        if (t > 0) for (let i = 0; i < sum!.length; i++) sum![i] = sum![i]! + out[i]!;
      }
      const plan = new Plan(this.#machine.threads);
      addLayerNorm(plan, sum!, await this.#norm(this.#names.firstNorm, signal), sum!);
      await plan.run(this.#machine.backend, { signal });
      return sum!;
    });
  }

  /** Reads a block, 0 to `config.layers - 1`. */
  async block(index: number, { signal }: { readonly signal?: AbortSignal | undefined } = {}): Promise<EncoderBlock> {
    return this.#lifetime.run(async () => {
      const { linears, attentionNorm, mlpNorm } = this.#names.block(index);
      const entries = [];
      for (const [name, spec] of Object.entries(linears)) {
        const isCoded = this.#coded.has(`${spec.module}.weight`);
        const linear = await readLinear(this.#model, spec, isCoded, { ...this.#run, signal });
        entries.push([name, { module: spec.module, linear }] as const);
      }
      return new EncoderBlock(this.config, this.#machine, {
        linears: Object.fromEntries(entries) as never,
        attentionNorm: await this.#norm(attentionNorm, signal),
        mlpNorm: await this.#norm(mlpNorm, signal),
      });
    });
  }

  /** Closes the files, when the calls under way are done. Blocks that were read go on. */
  async close(): Promise<void> {
    await this.#lifetime.close(() => this.#model.close());
  }

  async #norm(module: string, signal: AbortSignal | undefined): Promise<LayerNorm> {
    const { threads } = this.#run;
    const [weight, bias] = [
      await this.#model.load(`${module}.weight`, { signal, threads }),
      await this.#model.load(`${module}.bias`, { signal, threads }),
    ];
    return { weight, bias, epsilon: this.config.normEpsilon };
  }
}
