import { atOnce, type Steps, sortSteps } from '../../files/event-loop.js';
import { HqqError } from '../../messages/errors.js';
import { compareBytes, quote } from '../../messages/text.js';
import type { Layout, TensorEntry, TensorSpec } from '../container.js';
import { bitsOfType } from '../stored-types.js';
import {
  isKnown,
  LENGTH_BYTES,
  MAX_DIMENSIONS,
  MAX_HEADER_BYTES,
  MAX_METADATA_ENTRIES,
  MAX_TENSORS,
  tensorBytes,
} from './header.js';

/** A file before its tensors are written: the bytes of its header, and where everything goes. */
export interface SafetensorsLayout extends Layout {
  /** Length and JSON, padded with spaces to a multiple of 8: tensors are aligned to their elements. */
  readonly header: Uint8Array;
}

/**
 * The layout of a file that holds `tensors`: widest elements first, then by name, as the safetensors library writes them.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` when a name comes twice, or there are too many tensors or bytes for the header to be read again;
 * `ERR_INVALID_ARGUMENT` for names, types and shapes that no file can hold.
 *
 * @param file What the file will be called.
 */
export function planLayout(
  tensors: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>> | ReadonlyMap<string, string> = {},
  file = '',
): SafetensorsLayout {
  return atOnce(layoutSteps(tensors, metadata, file));
}

/** `planLayout`, tensor by tensor. */
export function* layoutSteps(
  tensors: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>> | ReadonlyMap<string, string>,
  file: string,
): Steps<SafetensorsLayout> {
  if (tensors.length > MAX_TENSORS) {
    const message = `Expected at most ${MAX_TENSORS} tensors in a file, got ${tensors.length}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Split the model into shards.`);
  }
  const unsorted = [];
  for (const { name, type, shape } of tensors) {
    const bits = bitsOfType(type);
    const sound = shape.every((size) => Number.isSafeInteger(size) && size >= 0) && shape.length <= MAX_DIMENSIONS;
    const bytes = isKnown(type) && sound ? tensorBytes(shape, bits) : Number.NaN;
    if (Number.isNaN(bytes) || name === '' || name === '__metadata__' || /\p{Cs}/u.test(name)) {
      const got = `${quote(name)}: ${quote(type.name)} [${shape.slice(0, MAX_DIMENSIONS).join(', ')}]`;
      throw new HqqError('ERR_INVALID_ARGUMENT', `Expected a tensor that a safetensors file can hold, got ${got}.`);
    }
    unsorted.push({ name, type, shape: [...shape], bits, bytes });
    yield;
  }
  const specs = yield* sortSteps(unsorted, (a, b) => b.bits - a.bits || compareBytes(a.name, b.name));

  const pairs = metadata instanceof Map ? [...(metadata as ReadonlyMap<string, string>)] : Object.entries(metadata);
  if (pairs.length > MAX_METADATA_ENTRIES) {
    const message = `Expected at most ${MAX_METADATA_ENTRIES} entries of metadata, got ${pairs.length}.`;
    throw new HqqError('ERR_INVALID_ARGUMENT', message);
  }
  if (pairs.some((pair) => /\p{Cs}/u.test(pair.join(' ')))) {
    throw new HqqError('ERR_INVALID_ARGUMENT', 'Expected metadata to be well-formed text, got a lone surrogate.');
  }
  const json = new TextPieces();
  const texts = pairs.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  json.add(texts.length > 0 ? `{"__metadata__":{${texts.join(',')}}` : '{');
  const names = new Set<string>();
  let offset = 0;
  for (const { name, type, shape, bytes } of specs) {
    if (names.has(name)) {
      throw new HqqError(
        'ERR_CHECKPOINT_CONTENT',
        `Expected every tensor name once in a file, got ${quote(name)} twice.`,
      );
    }
    names.add(name);
    const end = offset + bytes;
    const comma = names.size > 1 || texts.length > 0 ? ',' : '';
    const value = `{"dtype":"${type.name}","shape":[${shape.join(',')}],"data_offsets":[${offset},${end}]}`;
    json.add(`${comma}${JSON.stringify(name)}:${value}`);
    offset = end;
    yield;
  }
  json.add('}');
  const pieces = json.end();
  const used = pieces.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const length = Math.ceil(used / 8) * 8;
  if (length > MAX_HEADER_BYTES || !Number.isSafeInteger(offset + LENGTH_BYTES + length)) {
    const message = `Expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${length} for ${specs.length} tensors`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. Split the model into shards.`);
  }
  const header = Buffer.allocUnsafeSlow(LENGTH_BYTES + length);
  header.writeBigUInt64LE(BigInt(length), 0);
  header.fill(' ', LENGTH_BYTES + used);
  let at = LENGTH_BYTES;
  for (const piece of pieces) {
    header.set(piece, at);
    at += piece.byteLength;
    yield;
  }

  const entries = new Map<string, TensorEntry>();
  let begin = header.byteLength;
  for (const { name, type, shape, bytes } of specs) {
    entries.set(name, { name, type, shape, file, begin, end: begin + bytes });
    begin += bytes;
    yield;
  }
  return { header, entries, fileSize: begin };
}

/** Characters that are encoded at once. */
const PIECE = 1 << 16;

/** UTF-8 text that grows: a long header in one piece would be one long turn of the event loop. */
class TextPieces {
  #text = '';
  readonly #pieces: Uint8Array[] = [];

  add(text: string): void {
    this.#text += text;
    if (this.#text.length >= PIECE) this.#cut();
  }

  end(): readonly Uint8Array[] {
    this.#cut();
    return this.#pieces;
  }

  #cut(): void {
    this.#pieces.push(Buffer.from(this.#text));
    this.#text = '';
  }
}
