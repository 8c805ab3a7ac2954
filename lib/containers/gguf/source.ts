import { basename, dirname, join } from 'node:path';
import { inTurns } from '../../files/event-loop.js';
import { closeFile, openRegular, readFully } from '../../files/io.js';
import { OpenFile } from '../../files/open-file.js';
import { HqqError } from '../../messages/errors.js';
import { formatError, plain, quote } from '../../messages/text.js';
import type { SourceFile, TensorEntry, TensorSource } from '../container.js';
import { MORE } from './cursor.js';
import { GgufEnvelope } from './envelope.js';
import { type GgufHeader, headerSteps, MAX_HEADER_BYTES, pairValue } from './header.js';

/** Bytes that are read at first; headers without a vocabulary have less. */
const FIRST_BYTES = 256 * 1024;

/** Most files of one model. */
const MAX_PARTS = 1024;

/** How files of one model are called: name-00002-of-00005.gguf. */
const PART = /-(\d{5})-of-(\d{5})\.gguf$/;

interface Part {
  readonly file: OpenFile;
  readonly header: GgufHeader;
  /** Where its bytes stand in the model, which is read as if its files were one. */
  readonly base: number;
}

/** Opens one file and reads its header. */
async function openPart(path: string, base: number): Promise<Part> {
  const { fd, size } = await openRegular(path);
  try {
    const header = await readHeader(fd, path, size);
    return { file: new OpenFile(path, fd, size), header, base };
  } catch (error) {
    await closeFile(fd);
    throw error;
  }
}

async function readHeader(fd: number, path: string, fileSize: number): Promise<GgufHeader> {
  const source = { file: basename(path), path, fileSize };
  for (let length = FIRST_BYTES; ; length *= 4) {
    const bytes = Buffer.allocUnsafeSlow(Math.min(length, fileSize, MAX_HEADER_BYTES));
    await readFully(fd, path, 0, bytes);
    try {
      const header = await inTurns(headerSteps(bytes, source));
      // The pairs alone stay: their bytes are a part of what was read.
      return { ...header, pairBytes: Uint8Array.prototype.slice.call(header.pairBytes) };
    } catch (error) {
      if (error !== MORE) throw error;
      if (bytes.byteLength < MAX_HEADER_BYTES && bytes.byteLength < fileSize) continue;
      const message = `the header has more than ${MAX_HEADER_BYTES} bytes, which are read at most`;
      throw formatError(path, `${message}. The file is damaged, or made to exhaust memory.`);
    }
  }
}

/** A model in one GGUF file, or in several, which are read as one. */
export class GgufSource implements TensorSource {
  readonly container = 'gguf';
  readonly kind = 'file';
  readonly path: string;
  readonly files: readonly SourceFile[];
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly envelope: GgufEnvelope;
  readonly #parts: readonly Part[];

  private constructor(path: string, parts: readonly Part[]) {
    this.path = path;
    this.#parts = parts;
    const last = parts.at(-1)!;
    const name = basename(path).replace(PART, '.gguf');
    this.files = [{ name, path, size: last.base + last.file.size }];
    const entries = new Map<string, TensorEntry>();
    for (const { header, base } of parts) {
      for (const [tensor, entry] of header.tensors) {
        if (entries.has(tensor)) throw formatError(path, `tensor ${quote(tensor)} is in two of the model's files.`);
        entries.set(tensor, { ...entry, file: name, begin: base + entry.begin, end: base + entry.end });
      }
    }
    this.entries = entries;
    const order = new Map([...entries.keys()].map((tensor, place) => [tensor, place]));
    this.envelope = new GgufEnvelope(parts[0]!.header, order);
  }

  /** Opens a file; of a model in several files any of them. @throws {HqqError} `ERR_IO`, `ERR_CHECKPOINT_FORMAT` */
  static async open(path: string): Promise<GgufSource> {
    const parts: Part[] = [];
    try {
      const given = await openPart(path, 0);
      parts.push(given);
      const count = pairValue(given.header, 'split.count') ?? 1;
      if (count === 1) return new GgufSource(path, parts);
      await given.file.close();
      parts.pop();
      let base = 0;
      for (const name of partNames(path, count)) {
        const part = await openPart(name, base);
        parts.push(part);
        base += part.file.size;
      }
      checkParts(path, parts);
      return new GgufSource(partNames(path, count)[0]!, parts);
    } catch (error) {
      await Promise.all(parts.map(({ file }) => file.close()));
      throw error;
    }
  }

  async read(entry: TensorEntry, at: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.readSpan(entry.file, entry.begin + at, into, signal);
  }

  readSync(entry: TensorEntry, at: number, into: Uint8Array): void {
    for (const { file, from, bytes } of this.#pieces(entry.begin + at, into)) file.readSync(from, bytes);
  }

  async readSpan(_file: string, begin: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    for (const { file, from, bytes } of this.#pieces(begin, into)) await file.read(from, bytes, signal);
  }

  async close(): Promise<void> {
    await Promise.all(this.#parts.map(({ file }) => file.close()));
  }

  /** What of `into` comes from which file. */
  *#pieces(begin: number, into: Uint8Array) {
    const end = begin + into.byteLength;
    for (const { file, base } of this.#parts) {
      const [first, last] = [Math.max(begin, base), Math.min(end, base + file.size)];
      if (first < last) yield { file, from: first - base, bytes: into.subarray(first - begin, last - begin) };
    }
  }
}

function partNames(path: string, count: unknown): readonly string[] {
  const [, , digits] = PART.exec(basename(path)) ?? [];
  if (typeof count !== 'number' || !Number.isInteger(count) || count < 1 || count > MAX_PARTS)
    throw formatError(path, `expected split.count to be an integer from 1 to ${MAX_PARTS}.`);
  if (digits === undefined || Number(digits) !== count) {
    const message = `the model is in ${count} files, but this one is not called as one of them, <name>-00001-of-${String(count).padStart(5, '0')}.gguf`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(path)}: ${message}. Give the files the names that they had.`);
  }
  const stem = basename(path).replace(PART, '');
  return Array.from({ length: count }, (_, i) =>
    join(dirname(path), `${stem}-${String(i + 1).padStart(5, '0')}-of-${digits}.gguf`),
  );
}

function checkParts(path: string, parts: readonly Part[]): void {
  for (const [i, { file, header }] of parts.entries()) {
    if (pairValue(header, 'split.no') === i && pairValue(header, 'split.count') === parts.length) continue;
    throw formatError(
      file.path,
      `expected part ${i} of ${parts.length} (split.no, split.count). Files of two models lie there.`,
    );
  }
  const wanted = pairValue(parts[0]!.header, 'split.tensors.count');
  const count = parts.reduce((sum, { header }) => sum + header.tensors.size, 0);
  if (wanted !== undefined && wanted !== count)
    throw formatError(path, `expected ${String(wanted)} tensors in ${parts.length} files, got ${count}.`);
}
