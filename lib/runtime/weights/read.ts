import { QuantizedLinear } from '../../compute/linear.js';
import { checkLinearOptions } from '../../compute/linear-options.js';
import { LaidOut } from '../../compute/panels.js';
import { resolveThreads } from '../../compute/run.js';
import { yieldIfDue } from '../../files/event-loop.js';
import type { OwnedFloat32Array } from '../../matrix/arrays.js';
import { checkQuantized } from '../../matrix/validate.js';
import type { RunOptions } from '../../matrix/weight.js';
import { allocating } from '../../messages/allocating.js';
import { quote } from '../../messages/text.js';
import type { Model } from '../../models/model.js';
import { Block } from '../blocks/block.js';
import type { ExpertLinears } from '../blocks/experts.js';
import { HEAD_MODULE, Head } from '../blocks/head.js';
import { CodedLinear, DenseLinear, type Linear, type NamedLinear } from '../blocks/linear.js';
import type { MlpLinears } from '../blocks/mlp.js';
import { RmsNorm } from '../blocks/norm.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import { FiledLinear, type Slots } from './filed-linear.js';
import { OWN, Slabs, type WeightMemory } from './slabs.js';
import { CodedTable, DenseTable, type Embedding, groupOf, quantizeTable, scaleRows } from './table.js';
import {
  blockSpec,
  checkTensors,
  EMBEDDING,
  type ExpertsSpec,
  FINAL_NORM,
  headSpec,
  type LinearSpec,
  linearsOf,
  type MlpSpec,
} from './tensors.js';

/** Everything that a language model computes with. */
export interface ModelWeights {
  readonly embedding: Embedding;
  readonly blocks: readonly Block[];
  readonly head: Head;
}

/** How weights are read, and what quantized layers compute with. */
export interface ReadOptions extends RunOptions {
  readonly activations: 'float32' | 'int8';
}

/** What the tables of tokens, the embedding and the head, become where they are floats. */
export interface TableOptions extends ReadOptions {
  /** Undefined: as the layers are, 8 bits where these are codes. */
  readonly head: 'float32' | 'int8' | undefined;
}

/** Which blocks stay in the file. */
export interface Filed {
  /** The most that a block in memory takes in float32. */
  readonly bytes: number;
  readonly slots: Slots;
}

/** Reads all weights of a model. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` as `checkTensors` does */
export async function readWeights(
  model: Model,
  config: LanguageModelConfig,
  { head, ...run }: TableOptions,
): Promise<ModelWeights> {
  checkTensors(model, config);
  const reader = new WeightReader(model, config, new Slabs());
  const group = groupOf(config.hiddenSize);
  const inBytes = group !== undefined && (head ?? (reader.hasCodes ? 'int8' : 'float32')) === 'int8';
  const embedding = inBytes ? await reader.codedTable(group, run) : await reader.table(run);
  const blocks: Block[] = [];
  for (let index = 0; index < config.layers; index++) blocks.push(await reader.block(index, run));
  return { embedding, blocks, head: await reader.head(run, { embedding, ...(inBytes && { group }) }) };
}

/** Bytes that weights take. */
export function memoryOf(
  { embedding, blocks, head }: ModelWeights,
  { tied }: LanguageModelConfig,
  beside: readonly { readonly bytes: number }[],
) {
  const sum = (of: (bytes: (typeof blocks)[number]['bytes']) => number) =>
    blocks.reduce((total, { bytes }) => total + of(bytes), 0);
  const linears = sum((bytes) => bytes.linears);
  const adapters = beside.reduce((total, { bytes }) => total + bytes, 0);
  return Object.freeze({ total: linears + embedding.bytes + (tied ? 0 : head.bytes) + adapters, linears, adapters });
}

/** Reads the parts of a model that `checkTensors` has passed. */
export class WeightReader {
  readonly #model: Model;
  readonly #config: LanguageModelConfig;
  readonly #coded: ReadonlySet<string>;
  readonly #memory: WeightMemory;
  /** Where layers of floats read their weights into, as they run; undefined where these are in memory. */
  #slots: Slots | undefined;

  constructor(model: Model, config: LanguageModelConfig, memory: WeightMemory = OWN) {
    this.#model = model;
    this.#config = config;
    this.#memory = memory;
    this.#coded = new Set(model.tensors.flatMap(({ name, quantized }) => (quantized ? [name] : [])));
  }

  /** Whether a layer's weights are codes in the file. */
  isCoded({ module }: LinearSpec): boolean {
    return this.#coded.has(`${module}.weight`);
  }

  /** Whether linear layers of blocks are codes in the file. */
  get hasCodes(): boolean {
    return [...this.#coded].some((name) => name !== EMBEDDING && !name.startsWith(HEAD_MODULE));
  }

  get embeddingIsCoded(): boolean {
    return this.#coded.has(EMBEDDING);
  }

  /** The embedding in float32. */
  async table(run: RunOptions): Promise<DenseTable> {
    const { vocabSize, hiddenSize } = this.#config;
    const weights = await this.#matrix(EMBEDDING, vocabSize * hiddenSize, run);
    return new DenseTable(weights, hiddenSize, this.#config.multipliers.embedding);
  }

  /** The embedding in 8 bits, or in the codes that the file has. */
  async codedTable(group: number, run: ReadOptions): Promise<CodedTable> {
    const { vocabSize, hiddenSize, multipliers } = this.#config;
    if (this.embeddingIsCoded) {
      const spec = { module: EMBEDDING.replace(/\.weight$/, ''), shape: [vocabSize, hiddenSize], bias: false } as const;
      const stored = await this.#linear(spec, run);
      if (stored instanceof CodedLinear && stored.layer.path === 'fused')
        return new CodedTable(stored.layer, multipliers.embedding);
    }
    const layer = await this.#quantized(EMBEDDING, [vocabSize, hiddenSize], group, run);
    return new CodedTable(layer, multipliers.embedding);
  }

  /** The rows of the embedding that belong to `ids`, `[ids.length, hiddenSize]`. */
  async embeddingRows(ids: ArrayLike<number>, run: RunOptions): Promise<OwnedFloat32Array> {
    const { hiddenSize } = this.#config;
    const rows = allocating('the embeddings of the tokens', () => new Float32Array(ids.length * hiddenSize));
    await this.#model.loadRows(EMBEDDING, ids, rows, run);
    for (let at = 0; at < rows.length; at += hiddenSize) {
      scaleRows(rows.subarray(at, at + hiddenSize), this.#config.multipliers.embedding);
      await yieldIfDue();
    }
    return rows;
  }

  /** @param filed Of a block whose floats take more than `bytes`, they stay in the file: each layer reads its own as it runs. */
  async block(index: number, run: ReadOptions, filed?: Filed): Promise<Block> {
    const spec = blockSpec(this.#config, index, (name) => this.#model.shapes.has(name));
    const { qkv, o, mlp, norms } = spec;
    const floats = linearsOf(spec).reduce(
      (sum, layer) => sum + (this.isCoded(layer) ? 0 : layer.shape[0] * layer.shape[1]),
      0,
    );
    this.#slots = filed && floats * Float32Array.BYTES_PER_ELEMENT > filed.bytes ? filed.slots : undefined;
    const linears = { qkv: await this.#all(qkv, run), o: await this.#named(o, run), mlp: await this.#mlp(mlp, run) };
    const read: Record<string, RmsNorm> = {};
    for (const [place, { name }] of Object.entries(norms)) read[place] = await this.#norm(name, run);
    return new Block(this.#config, index, linears, read);
  }

  /** @param tables The embedding, where it is in memory: a tied head is that. With `group`, a head of floats becomes 8 bits. */
  async head(run: ReadOptions, { embedding, group }: { embedding?: Embedding; group?: number } = {}): Promise<Head> {
    const spec = headSpec(this.#config);
    const norm = await this.#norm(FINAL_NORM, run);
    return new Head(norm, await this.#headLinear(spec, run, embedding, group), this.#config);
  }

  async #headLinear(
    spec: LinearSpec,
    run: ReadOptions,
    embedding: Embedding | undefined,
    group: number | undefined,
  ): Promise<Linear> {
    if (!this.#config.tied) {
      if (group === undefined || this.isCoded(spec)) return this.#linear(spec, run);
      return new CodedLinear(await this.#quantized(`${spec.module}.weight`, spec.shape, group, run));
    }
    if (embedding instanceof CodedTable) return new CodedLinear(embedding.layer);
    const { weights } = embedding instanceof DenseTable ? embedding : await this.table(run);
    return new DenseLinear(weights, spec.shape);
  }

  /** The head for tokens `[from, to)` alone, in float32. Of a head whose codes the file has there is no part: those are small. */
  async headPart([from, to]: readonly [from: number, to: number], run: RunOptions): Promise<Head> {
    const { hiddenSize, tied } = this.#config;
    const rows = Uint32Array.from({ length: to - from }, (_, i) => from + i);
    const weights = this.#memory.floats(rows.length * hiddenSize);
    await this.#model.loadRows(tied ? EMBEDDING : `${HEAD_MODULE}.weight`, rows, weights, run);
    return new Head(
      await this.#norm(FINAL_NORM, run),
      new DenseLinear(weights, [rows.length, hiddenSize]),
      this.#config,
    );
  }

  async #norm(name: string, { signal, threads }: RunOptions): Promise<RmsNorm> {
    const { normOffset, normEpsilon } = this.#config;
    const weight = await this.#model.load(name, { signal, threads });
    if (normOffset !== 0) for (let i = 0; i < weight.length; i++) weight[i]! += normOffset;
    return new RmsNorm(weight, normEpsilon);
  }

  async #mlp(spec: MlpSpec | ExpertsSpec, run: ReadOptions): Promise<MlpLinears | ExpertLinears> {
    if (!('router' in spec)) return this.#gated(spec, run);
    const experts: MlpLinears[] = [];
    for (const expert of spec.experts) experts.push(await this.#gated(expert, run));
    return { router: await this.#named(spec.router, run), experts };
  }

  async #gated({ gateUp, down }: MlpSpec, run: ReadOptions): Promise<MlpLinears> {
    return { gateUp: await this.#all(gateUp, run), down: await this.#named(down, run) };
  }

  async #all(specs: readonly LinearSpec[], run: ReadOptions): Promise<NamedLinear[]> {
    const read: NamedLinear[] = [];
    for (const spec of specs) read.push(await this.#named(spec, run));
    return read;
  }

  async #named(spec: LinearSpec, run: ReadOptions): Promise<NamedLinear> {
    return { module: spec.module, linear: await this.#linear(spec, run) };
  }

  #linear(spec: LinearSpec, run: ReadOptions): Promise<Linear> {
    if (this.#slots === undefined || this.isCoded(spec))
      return readLinear(this.#model, spec, this.isCoded(spec), run, this.#memory);
    return fileLinear(this.#model, spec, run, this.#slots);
  }

  /** A table of floats, or of codes that no row can be read from, in 8 bits. */
  #quantized(name: string, shape: LinearSpec['shape'], group: number, run: ReadOptions): Promise<QuantizedLinear> {
    const read = (from: number, to: number, out: Float32Array) => {
      const rows = Uint32Array.from({ length: to - from }, (_, i) => from + i);
      return this.#model.loadRows(name, rows, out, { signal: run.signal, threads: run.threads });
    };
    return quantizeTable(name, shape, group, read, run);
  }

  #matrix(name: string, count: number, run: RunOptions): Promise<Float32Array> {
    return readMatrix(this.#model, name, count, run, this.#memory.floats);
  }
}

/** Reads a linear layer, whatever its weights are. */
export async function readLinear(
  model: Model,
  { module, shape, bias: hasBias, stack }: LinearSpec,
  isCoded: boolean,
  { activations, signal, threads }: ReadOptions,
  { floats, panels }: WeightMemory = OWN,
): Promise<Linear> {
  if (stack) {
    const weights = allocating(quote(module), () => floats(shape[0] * shape[1]));
    await model.loadRows(stack.tensor, [stack.index], weights, { signal, threads });
    return new DenseLinear(weights, shape);
  }
  const bias = hasBias ? await model.load(`${module}.bias`, { signal, threads }) : undefined;
  if (!isCoded) {
    const weights = await readMatrix(model, `${module}.weight`, shape[0] * shape[1], { signal, threads }, floats);
    return new DenseLinear(weights, shape, bias);
  }
  const q = await model.loadQuantized(module, { signal, threads });
  checkQuantized(q); // before there is memory for it
  checkLinearOptions({ bias, activations }, q.shape[0]);
  const laidOut = await LaidOut.later(q, { signal, threads: resolveThreads(threads) }, undefined, panels);
  return new CodedLinear(new QuantizedLinear(laidOut, { bias, activations }));
}

/** A linear layer of floats that stay in the file. */
async function fileLinear(
  model: Model,
  { module, shape, bias: hasBias, stack }: LinearSpec,
  run: RunOptions,
  slots: Slots,
): Promise<Linear> {
  const bias = hasBias ? await model.load(`${module}.bias`, { signal: run.signal, threads: run.threads }) : undefined;
  const [name, first] = stack ? [stack.tensor, stack.index * shape[0]] : [`${module}.weight`, 0];
  const read = (from: number, to: number, out: Float32Array, { signal, threads }: RunOptions) => {
    const rows = Uint32Array.from({ length: to - from }, (_, i) => first + from + i);
    return model.loadRows(name, rows, out, { signal, threads });
  };
  return new FiledLinear(shape, bias, { read, slots });
}

async function readMatrix(
  model: Model,
  name: string,
  count: number,
  { signal, threads }: RunOptions,
  floats: (count: number) => Float32Array,
): Promise<Float32Array> {
  const out = allocating(quote(name), () => floats(count));
  await model.loadInto(name, out, { signal, threads });
  return out;
}
