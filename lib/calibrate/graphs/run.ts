import { bytesOf, widenBytes } from '../../compute/floats.js';
import type { GraphPart, Piece, RunnableGraph, Tap, ValueKind } from '../../containers/runnable.js';
import { HqqError } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import type { Ort, OrtSession, OrtTensor } from './engine.js';

// Runs a graph part by part on several inputs: all of them through a part, then on.

/** What a graph is given, by the names of its inputs. */
export type Feeds = Readonly<Record<string, OrtTensor>>;

/** One run through parts. */
interface Pass {
  readonly feeds: Iterable<Feeds>;
  /** What is tapped of the feeds themselves. */
  readonly given?: readonly Tap[];
  readonly parts: readonly GraphPart[];
  /** Shown every tensor that is tapped, and the index of the feeds that it came of. */
  readonly look: (tap: Tap, tensor: OrtTensor, index: number) => Promise<void> | void;
  /** Called when all feeds have been looked at where these are tapped, before what is behind them is computed. */
  readonly looked?: (taps: readonly Tap[]) => Promise<void>;
  /** Called with the share of the pass that is done. */
  readonly report?: (share: number) => void;
  readonly signal: AbortSignal | undefined;
}

/** One graph as it is run. */
export class GraphRun {
  readonly #ort: Ort;
  readonly #graph: RunnableGraph;
  readonly #threads: number | undefined;

  constructor(ort: Ort, graph: RunnableGraph, threads: number | undefined) {
    this.#ort = ort;
    this.#graph = graph;
    this.#threads = threads;
  }

  /** @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what onnxruntime does not run */
  async run({ feeds, given = [], parts, look, looked, report, signal }: Pass): Promise<void> {
    const texts: Map<string, OrtTensor>[] = [];
    for (const own of feeds) {
      const values = new Map<string, OrtTensor>();
      for (const [name, { type, data, dims }] of Object.entries(own)) {
        const tensor = await this.#attempt(async () => new this.#ort.Tensor(type, data, dims));
        values.set(name, tensor);
        for (const tap of given) if (tap.value === name) await look(tap, tensor, texts.length);
      }
      texts.push(values);
    }
    await looked?.(given);
    report?.(0);
    const kinds = new Map<string, ValueKind>();
    for (const [i, part] of parts.entries()) {
      const { pieces = [undefined] } = part;
      const made: Feeds[][] = texts.map(() => []);
      for (const [k, piece] of pieces.entries()) {
        signal?.throwIfAborted();
        const session = await this.#open(part, kinds, piece);
        try {
          for (const [at, values] of texts.entries()) {
            signal?.throwIfAborted();
            made[at]!.push(await this.#compute(session, part, values));
            if (k === pieces.length - 1) {
              const own = await this.#joined(part, made[at]!.splice(0));
              keep(part, own, values, kinds);
              for (const tap of part.taps) await look(tap, own[tap.value]!, at);
            }
            report?.((i + (k + (at + 1) / texts.length) / pieces.length) / parts.length);
          }
        } finally {
          await session.release();
        }
      }
      await looked?.(part.taps);
    }
  }

  /** The numbers of a tensor, in rows. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for rows that are not of `width`, where it is given */
  rows(name: string, { type, data, dims }: OrtTensor, width?: number): Float32Array {
    const count = dims.reduce((product, size) => product * size, 1);
    if (width !== undefined && dims.at(-1) !== width)
      throw this.#refusal(`value ${quote(name)} has the size [${dims.join(', ')}], where layers take ${width}`);
    const rows = new Float32Array(count);
    if (type === 'float32') rows.set(data as Float32Array);
    else if (type === 'float16') widenBytes(bytesOf(data as Uint16Array), type, rows);
    else throw this.#refusal(`value ${quote(name)} is of type ${type}`);
    return rows;
  }

  async #open(part: GraphPart, kinds: ReadonlyMap<string, ValueKind>, piece: Piece | undefined): Promise<OrtSession> {
    const bytes = await part.model(kinds, piece);
    const extra = { session: { model_external_initializers_file_folder_path: this.#graph.folder } };
    const threads = this.#threads === undefined ? {} : { intraOpNumThreads: this.#threads };
    // Errors come as exceptions, too; warnings of a part are none of the user's.
    const options = { ...threads, extra, logSeverityLevel: 4, graphOptimizationLevel: 'basic' };
    return this.#attempt(() => this.#ort.InferenceSession.create(bytes, options));
  }

  #compute(
    session: OrtSession,
    { inputs, outputs }: GraphPart,
    values: ReadonlyMap<string, OrtTensor>,
  ): Promise<Feeds> {
    const feeds = Object.fromEntries(inputs.map((name) => [name, values.get(name)!]));
    return this.#attempt(() => session.run(feeds, outputs));
  }

  /** What pieces of a part gave together. */
  async #joined({ outputs }: GraphPart, pieces: readonly Feeds[]): Promise<Feeds> {
    if (pieces.length === 1) return pieces[0]!;
    const whole: [string, OrtTensor][] = [];
    for (const name of outputs) {
      const { type, data, dims } = joined(pieces.map((piece) => piece[name]!));
      whole.push([name, await this.#attempt(async () => new this.#ort.Tensor(type, data, dims))]);
    }
    return Object.fromEntries(whole);
  }

  async #attempt<T>(act: () => Promise<T>): Promise<T> {
    try {
      return await act();
    } catch (cause) {
      if (cause instanceof HqqError) throw cause;
      const said = (cause instanceof Error ? cause.message : String(cause)).split('\n', 1)[0]!;
      throw this.#refusal(`onnxruntime says: ${plain(said.replace(/\.$/, ''))}`, cause);
    }
  }

  #refusal(what: string, cause?: unknown): HqqError {
    const message = `${plain(this.#graph.path)} does not run on inputs that are made for importance: ${what}`;
    return new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `${message}. Give inputs in a program (importance: { inputs }), or leave importance out (--importance none).`,
      { cause },
    );
  }
}

/** Takes up what a part computed, and lets go of what no later one takes. */
function keep(
  { outputs, last }: GraphPart,
  made: Feeds,
  values: Map<string, OrtTensor>,
  kinds: Map<string, ValueKind>,
): void {
  for (const name of outputs) {
    const tensor = made[name]!;
    values.set(name, tensor);
    kinds.set(name, { type: tensor.type, rank: tensor.dims.length });
  }
  for (const name of last) values.delete(name);
}

/** Rows of pieces, each followed by that of the next. */
function joined(parts: readonly OrtTensor[]): OrtTensor {
  const [{ type, dims }] = parts as readonly [OrtTensor];
  const width = parts.reduce((sum, part) => sum + part.dims.at(-1)!, 0);
  const rows = dims.slice(0, -1).reduce((product, size) => product * size, 1);
  const arrays = parts.map(({ data }) => data as Float32Array); // or of another type
  const data = new (arrays[0]!.constructor as Float32ArrayConstructor)(rows * width);
  let from = 0;
  for (const [i, own] of arrays.entries()) {
    const size = parts[i]!.dims.at(-1)!;
    for (let row = 0; row < rows; row++) data.set(own.subarray(row * size, (row + 1) * size), row * width + from);
    from += size;
  }
  return { type, dims: [...dims.slice(0, -1), width], data };
}
