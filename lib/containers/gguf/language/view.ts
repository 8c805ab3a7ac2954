import type { Envelope, SourceFile, TensorEntry, TensorSource, TensorSpec } from '../../container.js';
import type { Grid } from '../../grid.js';

/** How rows of a tensor lie in another order: `from(row)` of each head of `size` rows is what lies at `row`. */
export interface RowOrder {
  readonly size: number;
  from(row: number): number;
}

/** A tensor of a view: what it is there, and where its bytes come from. */
export type Seen = TensorSpec &
  (
    | { readonly bytes: Uint8Array }
    | { readonly of: TensorEntry; readonly rows?: RowOrder | undefined }
    | { readonly of: TensorEntry; make(stored: Uint8Array): Uint8Array }
  );

interface ViewParts {
  /** Name of the container that it looks like. */
  readonly container: string;
  readonly kind: TensorSource['kind'];
  /** Name of the file that holds its tensors. */
  readonly file: string;
  readonly envelope: Envelope;
  /** In the order in which they are to lie. */
  readonly tensors: readonly Seen[];
}

/** Bytes that are read, and what is done when they are there. */
interface Fetch {
  readonly entry: TensorEntry;
  readonly at: number;
  readonly into: Uint8Array;
  readonly place?: () => void;
}

/** The model of a source under other names, in another order of rows, with other surroundings. Closing it closes the source. */
export class TensorView implements TensorSource {
  readonly container: string;
  readonly stored: string;
  readonly of: TensorSource;
  readonly kind: TensorSource['kind'];
  readonly path: string;
  readonly inputs: readonly string[];
  readonly files: readonly SourceFile[];
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly envelope: Envelope;
  readonly #source: TensorSource;
  readonly #seen: ReadonlyMap<string, Seen>;

  constructor(source: TensorSource, { container, kind, file, envelope, tensors }: ViewParts) {
    this.#source = source;
    this.container = container;
    this.of = source;
    this.stored = source.stored ?? source.container;
    this.kind = kind;
    this.path = source.path;
    this.inputs = source.inputs ?? [...source.files.map(({ path }) => path), source.path];
    this.envelope = envelope;
    this.#seen = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    let at = 0;
    const entries = new Map<string, TensorEntry>();
    for (const { name, type, shape } of tensors) {
      const count = shape.reduce((product, one) => product * one, 1);
      const end = at + (count / type.blockElements) * type.blockBytes;
      entries.set(name, { name, type, shape, file, begin: at, end });
      at = end;
    }
    this.entries = entries;
    // What is read are the source's files, with all that they hold beside tensors.
    const size = source.files.reduce((sum, { size: own }) => sum + own, 0);
    this.files = [{ name: file, path: source.path, size }];
  }

  async read(entry: TensorEntry, at: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    const fetch = this.#fetch(entry.name, at, into);
    if (fetch === undefined) return;
    await this.#source.read(fetch.entry, fetch.at, fetch.into, signal);
    fetch.place?.();
  }

  readSync(entry: TensorEntry, at: number, into: Uint8Array): void {
    const fetch = this.#fetch(entry.name, at, into);
    if (fetch === undefined) return;
    this.#source.readSync(fetch.entry, fetch.at, fetch.into);
    fetch.place?.();
  }

  async readSpan(_file: string, begin: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    const end = begin + into.byteLength;
    for (const entry of this.entries.values()) {
      const [from, to] = [Math.max(begin, entry.begin), Math.min(end, entry.end)];
      if (from < to) await this.read(entry, from - entry.begin, into.subarray(from - begin, to - begin), signal);
    }
  }

  async grid({ name }: TensorEntry, signal?: AbortSignal): Promise<Grid | undefined> {
    const seen = this.#seen.get(name)!;
    if (!('of' in seen) || 'make' in seen) return undefined;
    const grid = await this.#source.grid?.(seen.of, signal);
    if (grid === undefined || seen.rows === undefined) return grid;
    const order = seen.rows;
    const turned = (values: Float32Array) => turnedRows(values, new Float32Array(values.length), seen.shape[0]!, order);
    return { ...grid, scale: turned(grid.scale), zero: turned(grid.zero) };
  }

  inOrder({ name }: TensorEntry, rows: Uint8Array): Uint8Array {
    const seen = this.#seen.get(name)!;
    const order = 'rows' in seen ? seen.rows : undefined;
    return order === undefined ? rows : turnedRows(rows, new Uint8Array(rows.length), seen.shape[0]!, order);
  }

  /** Absent where the source has none: it is no model of codes. */
  get gridSize(): TensorSource['gridSize'] {
    const source = this.#source;
    if (source.gridSize === undefined) return undefined;
    return ({ name }) => {
      const seen = this.#seen.get(name);
      return seen === undefined || !('of' in seen) || 'make' in seen ? undefined : source.gridSize!(seen.of);
    };
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  #fetch(name: string, at: number, into: Uint8Array): Fetch | undefined {
    const seen = this.#seen.get(name)!;
    if ('bytes' in seen) {
      into.set(seen.bytes.subarray(at, at + into.byteLength));
      return undefined;
    }
    const { of: entry } = seen;
    if ('make' in seen) {
      const stored = new Uint8Array(entry.end - entry.begin);
      return {
        ...{ entry, at: 0, into: stored },
        place: () => into.set(seen.make(stored).subarray(at, at + into.byteLength)),
      };
    }
    return seen.rows === undefined ? { entry, at, into } : inOrder(entry, seen.rows, at, into);
  }
}

/** Writes rows in another order. */
function turnedRows<T extends Float32Array | Uint8Array>(
  values: T,
  turned: T,
  rows: number,
  { size, from }: RowOrder,
): T {
  const width = values.length / rows;
  for (let row = 0; row < rows; row++) {
    const head = Math.floor(row / size) * size;
    const origin = (head + from(row - head)) * width;
    turned.set(values.subarray(origin, origin + width), row * width);
  }
  return turned;
}

/** Whole heads are read, and of their rows what is asked for is put in place. */
function inOrder(entry: TensorEntry, { size, from }: RowOrder, at: number, into: Uint8Array): Fetch {
  const rowBytes = (entry.end - entry.begin) / entry.shape[0]!;
  const headBytes = size * rowBytes;
  const end = at + into.byteLength;
  const first = Math.floor(at / headBytes) * headBytes;
  const heads = new Uint8Array(Math.ceil(end / headBytes) * headBytes - first);
  const place = () => {
    for (let row = Math.floor(at / rowBytes); row * rowBytes < end; row++) {
      const head = Math.floor(row / size) * size;
      const origin = (head + from(row - head)) * rowBytes - first;
      const [begin, stop] = [Math.max(at, row * rowBytes), Math.min(end, (row + 1) * rowBytes)];
      const skipped = begin - row * rowBytes;
      into.set(heads.subarray(origin + skipped, origin + skipped + stop - begin), begin - at);
    }
  };
  return { entry, at: first, into: heads, place };
}
