import { createHash } from 'node:crypto';
import type { TensorEntry, TensorSource } from './container.js';

/** Places of a file that are looked at, evenly spread over its bytes, and the bytes of each. */
const SAMPLES = 64;
const SAMPLE_BYTES = 4096;
/** Bytes of a tensor that is read whole where several samples lie in it: what the samples of a file come to. */
const WHOLE_BYTES = SAMPLES * SAMPLE_BYTES;
/** Reads under way at once: a disk elsewhere takes a millisecond for each. */
const READS = 16;

/**
 * What tells a model from another without reading terabytes: names and sizes of its files, name, type, shape and place of every
 * tensor, what surrounds them as far as the output depends on it (`Envelope.fingerprint`: of a folder config.json, the index's name and
 * each file's metadata), and samples of the tensors' bytes, 64 places of each file. Training changes every weight, so a fine-tuned
 * model of the same shape has another digest. It is no checksum: a few weights that were changed between the samples are not
 * noticed. Nor are files that are only carried along, as tokenizers are: the output has those of the input that it is finished with.
 * Moving or copying the model changes nothing.
 *
 * @returns SHA-256 in hexadecimal
 */
export async function digestOf(source: TensorSource, signal?: AbortSignal): Promise<string> {
  const { container, kind, files, entries, envelope } = source;
  const hash = createHash('sha256');
  // What is hashed, in its order, and not yet there.
  const ahead: Promise<string | Uint8Array>[] = [];
  const add = async (part: Promise<string | Uint8Array>): Promise<void> => {
    part.catch(() => {}); // told in its turn
    ahead.push(part);
    if (ahead.length > READS) hash.update(await ahead.shift()!);
  };
  const say = (...parts: readonly unknown[]) => add(Promise.resolve(`${JSON.stringify(parts)}\n`));
  try {
    await say(container, kind, envelope.fingerprint);
    const byFile = new Map<string, TensorEntry[]>(files.map(({ name }) => [name, []]));
    for (const entry of entries.values()) byFile.get(entry.file)!.push(entry);
    for (const { name, size } of files) {
      await say(name, size);
      const own = byFile.get(name)!;
      for (const entry of own) await say(entry.name, entry.type.name, entry.shape, entry.begin, entry.end);
      for (const part of samplesOf(source, own, size, signal)) await add(part);
    }
    while (ahead.length > 0) hash.update(await ahead.shift()!);
  } finally {
    await Promise.allSettled(ahead);
  }
  return hash.digest('hex');
}

/** The samples of a file, which are read when they are asked for. */
function* samplesOf(
  source: TensorSource,
  own: readonly TensorEntry[],
  size: number,
  signal: AbortSignal | undefined,
): Generator<Promise<Uint8Array>> {
  const read = async (entry: TensorEntry, at: number, count: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(count);
    await source.read(entry, at, bytes, signal);
    return bytes;
  };
  let whole: { readonly entry: TensorEntry; readonly bytes: Promise<Uint8Array> } | undefined;
  for (let k = 0, next = 0; k < SAMPLES; k++) {
    const position = Math.floor((k * size) / SAMPLES);
    while (next < own.length && own[next]!.end <= position) next++;
    const entry = own[next];
    if (entry === undefined) return;
    const at = Math.max(0, position - entry.begin);
    const length = entry.end - entry.begin;
    const count = Math.min(SAMPLE_BYTES, length - at);
    if (length > WHOLE_BYTES) yield read(entry, at, count);
    else {
      if (whole?.entry !== entry) whole = { entry, bytes: read(entry, 0, length) };
      yield whole.bytes.then((bytes) => bytes.subarray(at, at + count));
    }
  }
}
