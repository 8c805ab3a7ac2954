import type { QuantizedLinear } from '../../compute/linear.js';
import { whenAllEnd, yieldIfDue } from '../../files/event-loop.js';
import type { OwnedFloat32Array } from '../../matrix/arrays.js';
import type { RunOptions } from '../../matrix/weight.js';
import { allocating } from '../../messages/allocating.js';
import type { Model } from '../../models/model.js';
import { Block } from '../blocks/block.js';
import type { ExpertLinears } from '../blocks/experts.js';
import { HEAD_MODULE, Head } from '../blocks/head.js';
import { CodedLinear, DenseLinear, type Linear, type NamedLinear } from '../blocks/linear.js';
import type { MlpLinears } from '../blocks/mlp.js';
import { RmsNorm } from '../blocks/norm.js';
import type { LanguageModelConfig } from '../config/model-config.js';
import type { Slots } from './filed-linear.js';
import { filedLinear, quantizedLinear, type ReadOptions, readLinear, readMatrix } from './linears.js';
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

/** How a model's linear layers are read. */
interface LayerOptions extends ReadOptions {
  /** Whether those of floats become 8 bits, as far as their widths have groups. */
  readonly inCodes?: boolean;
  /** Where those of floats read their weights into, as they run; undefined where these are in memory. */
  readonly slots?: Slots | undefined;
}

/** What the tables of tokens, the embedding and the head, become where they are floats. */
export interface TableOptions extends ReadOptions {
  /** Undefined: as the layers are, 8 bits where these are codes. */
  readonly head: 'float32' | 'int8' | undefined;
  /** Bytes that floats of the model may take: where they take more, tables and layers become 8 bits. @default Infinity */
  readonly floatBytes?: number | undefined;
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
  { head, floatBytes = Infinity, ...given }: TableOptions,
): Promise<ModelWeights> {
  checkTensors(model, config);
  const reader = new WeightReader(model, config, new Slabs());
  const group = groupOf(config.hiddenSize);
  const inCodes = reader.floatBytes > floatBytes;
  const run = { ...given, inCodes };
  const inBytes = group !== undefined && (inCodes || (head ?? (reader.hasCodes ? 'int8' : 'float32')) === 'int8');
  const embedding = inBytes ? await reader.codedTable(group, run) : await reader.table(run);
  const blocks = await readBlocks(config.layers, (index) => reader.block(index, run));
  return { embedding, blocks, head: await reader.head(run, { embedding, ...(inBytes && { group }) }) };
}

/** Blocks that are read at once: while one is laid out, or widened, the next comes from the file. */
const AT_ONCE = 2;

async function readBlocks(count: number, read: (index: number) => Promise<Block>): Promise<readonly Block[]> {
  const blocks: Block[] = [];
  let next = 0;
  const readOn = async () => {
    try {
      while (next < count) {
        const index = next++;
        blocks[index] = await read(index);
      }
    } catch (error) {
      next = count; // nobody waits for the others
      throw error;
    }
  };
  await whenAllEnd(Array.from({ length: AT_ONCE }, readOn));
  return blocks;
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

  /** Bytes that all that is no codes takes in float32. */
  get floatBytes(): number {
    const counts = this.#model.tensors.map(({ quantized, shape }) =>
      quantized ? 0 : shape.reduce((a, b) => a * b, 1),
    );
    return counts.reduce((a, b) => a + b, 0) * Float32Array.BYTES_PER_ELEMENT;
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
  async block(index: number, given: Omit<LayerOptions, 'slots'>, filed?: Filed): Promise<Block> {
    const spec = blockSpec(this.#config, index, (name) => this.#model.shapes.has(name));
    const { qkv, o, mlp, norms } = spec;
    const floats = linearsOf(spec).reduce(
      (sum, layer) => sum + (this.isCoded(layer) ? 0 : layer.shape[0] * layer.shape[1]),
      0,
    );
    const slots = filed && floats * Float32Array.BYTES_PER_ELEMENT > filed.bytes ? filed.slots : undefined;
    const run = { ...given, slots }; // others may be read meanwhile
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

  async #mlp(spec: MlpSpec | ExpertsSpec, run: LayerOptions): Promise<MlpLinears | ExpertLinears> {
    if (!('router' in spec)) return this.#gated(spec, run);
    const experts: MlpLinears[] = [];
    for (const expert of spec.experts) experts.push(await this.#gated(expert, run));
    // Which experts are chosen is not to hang on its codes.
    return { router: await this.#named(spec.router, { ...run, inCodes: false }), experts };
  }

  async #gated({ gateUp, down }: MlpSpec, run: LayerOptions): Promise<MlpLinears> {
    return { gateUp: await this.#all(gateUp, run), down: await this.#named(down, run) };
  }

  async #all(specs: readonly LinearSpec[], run: LayerOptions): Promise<NamedLinear[]> {
    const read: NamedLinear[] = [];
    for (const spec of specs) read.push(await this.#named(spec, run));
    return read;
  }

  async #named(spec: LinearSpec, run: LayerOptions): Promise<NamedLinear> {
    return { module: spec.module, linear: await this.#linear(spec, run) };
  }

  #linear(spec: LinearSpec, run: LayerOptions): Promise<Linear> {
    const isCoded = this.isCoded(spec);
    if (!isCoded && run.slots) return filedLinear(this.#model, spec, run, run.slots);
    const group = !isCoded && run.inCodes ? groupOf(spec.shape[1]) : undefined;
    if (group !== undefined) return quantizedLinear(this.#model, spec, group, run);
    return readLinear(this.#model, spec, isCoded, run, this.#memory);
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
