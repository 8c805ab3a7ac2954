import { narrowBytes, widenBytes } from '../../compute/floats.js';
import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { yieldIfDue } from '../../files/event-loop.js';
import { DTYPES } from '../../matrix/dtype.js';
import { quote } from '../../messages/text.js';
import {
  type Adapter,
  type AdapterForm,
  type LoraMatrices,
  type LoraPair,
  openAdapter,
  otherModel,
  readFactor,
} from './lora.js';

/** Weights that are added to at once. */
const PIECE = 32 * 1024;
/** Layers whose matrices are kept: several parts of one are read side by side. */
const KEPT = 4;

/** What is added to a tensor `[rows, cols]`: the product of two matrices, `[rows, rank]` and `[rank, cols]`. */
interface Factors {
  readonly left: Float32Array;
  readonly right: Float32Array;
}

/** A model of which some weights have what an adapter adds. Closing it closes both. */
export class MergedSource implements TensorSource {
  readonly container: string;
  readonly path: string;
  readonly kind: TensorSource['kind'];
  readonly files: TensorSource['files'];
  readonly entries: TensorSource['entries'];
  readonly envelope: TensorSource['envelope'];
  readonly #base: TensorSource;
  readonly #adapter: Adapter;
  readonly #pairs: ReadonlyMap<string, LoraPair>;
  readonly #factors = new Map<string, Promise<Factors>>();

  /** @throws {HqqError} as `openAdapter`; `ERR_CHECKPOINT_CONTENT` for an adapter of another model */
  static async over(base: TensorSource, path: string, signal?: AbortSignal): Promise<MergedSource> {
    const names = new Map<string, string>();
    const adapter = await openAdapter(
      path,
      (matrices, form) => names.set(matrices.module, weightOf(base, form, matrices).name),
      signal,
    );
    return new MergedSource(base, adapter, new Map(adapter.pairs.map((pair) => [names.get(pair.module)!, pair])));
  }

  private constructor(base: TensorSource, adapter: Adapter, pairs: ReadonlyMap<string, LoraPair>) {
    ({ container: this.container, path: this.path, kind: this.kind, files: this.files } = base);
    ({ entries: this.entries, envelope: this.envelope } = base);
    this.#base = base;
    this.#adapter = adapter;
    this.#pairs = pairs;
  }

  /** Weights that something is added to. */
  get count(): number {
    return this.#pairs.size;
  }

  async read(entry: TensorEntry, at: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#base.read(entry, at, into, signal);
    const pair = this.#pairs.get(entry.name);
    if (pair === undefined) return;
    const { left, right } = await this.#factorsOf(pair, signal);
    const { rank, scale } = pair;
    const dtype = entry.type.float!;
    const { bytes: size } = DTYPES[dtype];
    const cols = entry.shape[1]!;
    const sums = new Float64Array(Math.min(cols, PIECE));
    for (let begin = 0; begin < into.length; begin += PIECE * size) {
      const part = into.subarray(begin, begin + PIECE * size);
      const bytes = part.slice(); // which lies as aligned as its numbers
      const values = new Float32Array(bytes.length / size);
      widenBytes(bytes, dtype, values);
      const first = (at + begin) / size;
      for (let done = 0; done < values.length; ) {
        const row = Math.floor((first + done) / cols);
        const col = (first + done) % cols;
        const count = Math.min(cols - col, values.length - done);
        sums.fill(0, 0, count);
        for (let k = 0; k < rank; k++) {
          const factor = scale * left[row * rank + k]!;
          const from = k * cols + col;
          for (let i = 0; i < count; i++) sums[i]! += factor * right[from + i]!;
        }
        for (let i = 0; i < count; i++) values[done + i]! += sums[i]!;
        done += count;
      }
      narrowBytes(values, dtype, bytes);
      part.set(bytes);
      await yieldIfDue();
    }
  }

  readSync(entry: TensorEntry, at: number, into: Uint8Array): void {
    if (this.#pairs.has(entry.name)) throw new RangeError(`Expected ${entry.name} to be read without blocking.`);
    this.#base.readSync(entry, at, into);
  }

  /** What lies in the model itself: only small tensors are read so, and none of these is merged. */
  readSpan(file: string, begin: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#base.readSpan(file, begin, into, signal);
  }

  async close(): Promise<void> {
    await this.#adapter.source.close();
    await this.#base.close();
  }

  #factorsOf(pair: LoraPair, signal: AbortSignal | undefined): Promise<Factors> {
    const known = this.#factors.get(pair.module);
    if (known !== undefined) return known;
    const made = this.#readFactors(pair, signal);
    this.#factors.set(pair.module, made);
    made.catch(() => this.#factors.delete(pair.module));
    const [oldest] = this.#factors.keys();
    if (this.#factors.size > KEPT) this.#factors.delete(oldest!);
    return made;
  }

  async #readFactors({ a, b, rank }: LoraPair, signal: AbortSignal | undefined): Promise<Factors> {
    const { source, fanInFanOut } = this.#adapter;
    const [down, up] = [await readFactor(source, a, signal), await readFactor(source, b, signal)];
    if (!fanInFanOut) return { left: up, right: down };
    const turned = (from: Float32Array, rows: number) => {
      const cols = from.length / rows;
      return from.map((_, i) => from[(i % rows) * cols + Math.floor(i / rows)]!);
    };
    return { left: turned(down, rank), right: turned(up, up.length / rank) };
  }
}

/** The tensor that a pair adds to. Files of a class's inner model have names without what the class puts before them. */
function weightOf(
  { entries, path }: TensorSource,
  { path: own, fanInFanOut }: AdapterForm,
  matrices: LoraMatrices,
): TensorEntry {
  const { module, a, b } = matrices;
  const names = [`${module}.weight`, `${module.replace(/^[^.]+\./, '')}.weight`];
  const entry = names.map((name) => entries.get(name)).find((found) => found !== undefined);
  const sizes = fanInFanOut ? [a.shape[1], b.shape[0]] : [b.shape[0], a.shape[1]];
  const refuse = (expected: string, got: string): never => {
    throw otherModel(path, own, expected, got);
  };
  if (entry === undefined) return refuse(quote(names[0]!), 'none');
  const { shape, type } = entry;
  if (shape.length !== 2 || shape[0] !== sizes[0] || shape[1] !== sizes[1] || type.float === undefined)
    return refuse(`${quote(entry.name)} as floats [${sizes.join(', ')}]`, `${type.name} [${shape.join(', ')}]`);
  return entry;
}
