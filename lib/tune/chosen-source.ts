import type { TensorEntry, TensorSource } from '../containers/container.js';
import type { ChosenCodes, Grid } from '../containers/grid.js';

/** Layers whose codes are in memory: chunks of one follow each other, and those of two are under way at once. */
const KEPT = 2;

/** A model of which the codes of some layers are chosen. The model under it stays open. */
export class ChosenSource implements TensorSource {
  readonly container: string;
  readonly path: string;
  readonly kind: TensorSource['kind'];
  readonly files: TensorSource['files'];
  readonly entries: TensorSource['entries'];
  readonly envelope: TensorSource['envelope'];
  readonly #under: TensorSource;
  readonly #read: (weight: string) => Promise<ChosenCodes | undefined>;
  readonly #close: () => Promise<void>;
  readonly #kept = new Map<string, Promise<ChosenCodes | undefined>>();

  /**
   * @param read what was chosen for a weight, by its name; undefined: nothing
   * @param close lets go of what it reads
   */
  constructor(
    under: TensorSource,
    read: (weight: string) => Promise<ChosenCodes | undefined>,
    close: () => Promise<void> = async () => {},
  ) {
    const { container, path, kind, files, entries, envelope } = under;
    this.container = container;
    this.path = path;
    this.kind = kind;
    this.files = files;
    this.entries = entries;
    this.envelope = envelope;
    this.#under = under;
    this.#read = read;
    this.#close = close;
  }

  chosen({ name }: TensorEntry): Promise<ChosenCodes | undefined> {
    const known = this.#kept.get(name);
    if (known) return known;
    if (this.#kept.size >= KEPT) this.#kept.delete(this.#kept.keys().next().value!);
    const codes = this.#read(name);
    codes.catch(() => {}); // told to who asked
    this.#kept.set(name, codes);
    return codes;
  }

  async grid(entry: TensorEntry, signal?: AbortSignal): Promise<Grid | undefined> {
    return this.#under.grid?.(entry, signal);
  }

  read(entry: TensorEntry, at: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#under.read(entry, at, into, signal);
  }

  readSync(entry: TensorEntry, at: number, into: Uint8Array): void {
    this.#under.readSync(entry, at, into);
  }

  readSpan(file: string, begin: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#under.readSpan(file, begin, into, signal);
  }

  async close(): Promise<void> {
    this.#kept.clear();
    await this.#close();
  }
}
