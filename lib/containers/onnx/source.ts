import { basename, dirname, join, normalize } from 'node:path';
import { inTurns } from '../../files/event-loop.js';
import { openRegular, readFullySync } from '../../files/io.js';
import { staysInside } from '../../files/model-folder.js';
import { OpenFile } from '../../files/open-file.js';
import type { OutputKind } from '../../files/output-rules.js';
import { formatError, plain, quote } from '../../messages/text.js';
import type { SourceFile, TensorEntry, TensorSource } from '../container.js';
import type { RunnableGraph } from '../runnable.js';
import { OnnxEnvelope, type OnnxModel } from './envelope.js';
import { OnnxGraph } from './graph.js';
import { runnable } from './run/runnable.js';
import { scanSteps } from './scan.js';
import { SpeltBytes } from './spelt.js';
import { nameOf, typeOf } from './transformers-js.js';
import { WireReader } from './wire.js';

/** Most files that the tensors of one model lie in. */
const MAX_FILES = 1024;

/** A file that is read as a part of a model's. */
interface Part {
  readonly file: OpenFile | SpeltBytes;
  /** Where its bytes stand in the model, whose files are read as if they were one. */
  readonly base: number;
}

/** A model that is open: its own file, then those that its tensors lie in. */
export interface OpenModel {
  readonly model: OnnxModel;
  readonly parts: readonly Part[];
  readonly entries: readonly TensorEntry[];
  readonly size: number;
}

/**
 * Opens a file.
 *
 * @param name What it is called in the source.
 * @param prefix Goes before the names of its tensors.
 */
export async function openOnnx(path: string, name: string, prefix = ''): Promise<OpenModel> {
  const { fd, size } = await openRegular(path);
  const parts: Part[] = [{ file: new OpenFile(path, fd, size), base: 0 }];
  try {
    const read = (position: number, into: Uint8Array) => readFullySync(fd, path, position, into);
    const message = await inTurns(scanSteps(new WireReader(path, { size, read }), path));
    const graph = await inTurns(OnnxGraph.index(message, path));
    let end = size;
    const bases = new Map<string, Part>();
    const entries: TensorEntry[] = [];
    const numbers = new SpeltBytes(path);
    const spelt: TensorEntry[] = [];
    for (const [key, { type, shape, hole, external, spelt: own, bytes }] of graph.tensors) {
      let begin = hole?.begin ?? 0;
      if (own) {
        begin = numbers.add(own);
        spelt.push({ name: prefix + key, type, shape, file: name, begin, end: begin + bytes });
        continue;
      }
      if (external) {
        const place = normalize(external.location); // "x.bin" and "./x.bin" are one file
        let part = bases.get(place);
        if (part === undefined) {
          if (bases.size === MAX_FILES) throw formatError(path, `its tensors lie in more than ${MAX_FILES} files.`);
          const file = await openBeside(path, external.location);
          part = { file, base: end };
          end += file.size;
          bases.set(place, part);
          parts.push(part);
        }
        const last = external.offset + bytes;
        if (last > part.file.size) {
          const where = `ends at byte ${last}, past the end of the file (${part.file.size} bytes)`;
          throw formatError(part.file.path, `tensor ${quote(key)} of ${plain(basename(path))} ${where}.`);
        }
        begin = part.base + external.offset;
      }
      entries.push({ name: prefix + key, type, shape, file: name, begin, end: begin + bytes });
    }
    for (const entry of spelt) entries.push({ ...entry, begin: entry.begin + end, end: entry.end + end });
    if (spelt.length > 0) parts.push({ file: numbers, base: end });
    end += numbers.size;
    entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
    checkApart(path, entries);
    return { model: { file: name, message, graph, prefix, apart: bases.size > 0 }, parts, entries, size: end };
  } catch (error) {
    await Promise.all(parts.map(({ file }) => file.close()));
    throw error;
  }
}

/** Refuses tensors that share some of their bytes. Those that are all the same are one tensor under two names. */
function checkApart(path: string, entries: readonly TensorEntry[]): void {
  for (const [i, { name, begin, end }] of entries.entries()) {
    const before = entries[i - 1];
    if (before === undefined || before.end <= begin || begin === end) continue;
    if (before.begin === begin && before.end === end) continue;
    throw formatError(path, `tensors ${quote(before.name)} and ${quote(name)} overlap. The file is damaged.`);
  }
}

/** Opens a file that a model says its tensors lie in: it may come from anybody, and must not lead elsewhere. */
async function openBeside(path: string, location: string): Promise<OpenFile> {
  const folder = dirname(path);
  const own = join(folder, location);
  if (!(await staysInside(folder, own))) {
    const message = `expected tensors in files of the model's folder, got ${quote(location)}, which is not there, or leads elsewhere.`;
    throw formatError(path, message);
  }
  const { fd, size } = await openRegular(own);
  return new OpenFile(own, fd, size);
}

/** What is known of some sources. */
interface Told extends Pick<TensorSource, 'widths' | 'unread'> {
  readonly original?: OnnxSource;
}

/** One ONNX file, or the files of a folder. */
export class OnnxSource implements TensorSource {
  readonly container = 'onnx';
  readonly kind: OutputKind;
  readonly path: string;
  readonly files: readonly SourceFile[];
  readonly inputs: readonly string[];
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly envelope: OnnxEnvelope;
  readonly #models: ReadonlyMap<string, OpenModel>;
  /** What it is several forms of. */
  readonly #original: OnnxSource | undefined;
  readonly forms: TensorSource['forms'];
  readonly widths: TensorSource['widths'];
  readonly unread: TensorSource['unread'];

  constructor(
    path: string,
    kind: OutputKind,
    models: readonly OpenModel[],
    envelope: OnnxEnvelope,
    { original, widths, unread }: Told = {},
  ) {
    this.#original = original;
    this.widths = widths;
    this.unread = unread;
    if (kind === 'folder' && original === undefined) this.forms = (...given) => this.#inForms(...given);
    this.path = path;
    this.kind = kind;
    this.envelope = envelope;
    this.#models = new Map(models.map((open) => [open.model.file, open]));
    this.files = models.map(({ model: { file, prefix }, parts, size }) => {
      return { name: file, path: parts[0]!.file.path, size, prefix };
    });
    this.inputs = kind === 'folder' ? [path] : models.flatMap(({ parts }) => parts.map(({ file }) => file.path));
    const entries = new Map<string, TensorEntry>();
    for (const open of models) for (const entry of open.entries) entries.set(entry.name, entry);
    this.entries = entries;
  }

  async read(entry: TensorEntry, at: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.readSpan(entry.file, entry.begin + at, into, signal);
  }

  readSync(entry: TensorEntry, at: number, into: Uint8Array): void {
    for (const { file, from, bytes } of this.#pieces(entry.file, entry.begin + at, into)) file.readSync(from, bytes);
  }

  async readSpan(name: string, begin: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    for (const { file, from, bytes } of this.#pieces(name, begin, into)) await file.read(from, bytes, signal);
  }

  /** The same models once for each width, called as transformers.js looks for them. */
  #inForms(widths: readonly number[], only?: ReadonlySet<string>): ReturnType<NonNullable<TensorSource['forms']>> {
    const prefixes = new Map<string, number>();
    const alone = new Set(this.#models.values());
    const models = widths.flatMap((bits) =>
      [...this.#models.values()].flatMap((open): readonly OpenModel[] => {
        const { model } = open;
        const type = typeOf(bits);
        const file = nameOf(model.file, type);
        const prefix = `${basename(file, '.onnx')}/`;
        if (only && !only.has(prefix)) return [];
        alone.delete(open);
        prefixes.set(prefix, bits);
        const called = (name: string) => prefix + name.slice(model.prefix.length);
        const form: OpenModel = {
          ...open,
          model: { ...model, file, prefix, form: { type, original: model.prefix } },
          entries: open.entries.map((entry) => ({ ...entry, file, name: called(entry.name) })),
        };
        return [form];
      }),
    );
    const all = [...models, ...alone];
    const envelope = this.envelope.around(all.map(({ model }) => model));
    return { source: new OnnxSource(this.path, this.kind, all, envelope, { original: this }), widths: prefixes };
  }

  async graphs(only?: ReadonlySet<string>): Promise<readonly RunnableGraph[]> {
    if (this.#original) return this.#original.graphs(only);
    const graphs: RunnableGraph[] = [];
    for (const { model, parts } of this.#models.values()) {
      const placeOf = (name: string) => {
        const { begin } = this.entries.get(name)!;
        const { file, base } = parts.findLast((part) => part.base <= begin)!;
        return { path: file.path, offset: begin - base };
      };
      graphs.push(await runnable({ source: this, model, placeOf }, parts[0]!.file.path, this.envelope, only));
    }
    return graphs;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#models.values()].flatMap(({ parts }) => parts.map(({ file }) => file.close())));
  }

  /** What of `into` comes from which file. */
  *#pieces(name: string, begin: number, into: Uint8Array) {
    const end = begin + into.byteLength;
    for (const { file, base } of this.#models.get(name)!.parts) {
      const [first, last] = [Math.max(begin, base), Math.min(end, base + file.size)];
      if (first < last) yield { file, from: first - base, bytes: into.subarray(first - begin, last - begin) };
    }
  }
}

/** Opens a single file. `output` is what is to be made of it. */
export async function openFile(path: string, output?: string): Promise<OnnxSource> {
  const open = await openOnnx(path, basename(path));
  const name = output === undefined ? undefined : basename(output);
  return new OnnxSource(path, 'file', [open], new OnnxEnvelope({ models: [open.model], notes: [], output: name }));
}
