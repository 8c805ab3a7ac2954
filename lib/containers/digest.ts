import { createHash } from 'node:crypto';
import type { TensorEntry, TensorSource } from './container.js';

/** Places of a file that are looked at, evenly spread over its bytes, and the bytes of each. */
const SAMPLES = 64;
const SAMPLE_BYTES = 4096;

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
  const add = (...parts: readonly unknown[]) => hash.update(`${JSON.stringify(parts)}\n`);
  add(container, kind, envelope.fingerprint);
  const byFile = new Map<string, TensorEntry[]>(files.map(({ name }) => [name, []]));
  for (const entry of entries.values()) byFile.get(entry.file)!.push(entry);
  const sample = Buffer.alloc(SAMPLE_BYTES);
  for (const { name, size } of files) {
    add(name, size);
    const own = byFile.get(name)!;
    for (const entry of own) add(entry.name, entry.type.name, entry.shape, entry.begin, entry.end);
    for (let k = 0, next = 0; k < SAMPLES; k++) {
      const position = Math.floor((k * size) / SAMPLES);
      while (next < own.length && own[next]!.end <= position) next++;
      const entry = own[next];
      if (entry === undefined) break;
      const at = Math.max(0, position - entry.begin);
      const bytes = sample.subarray(0, Math.min(SAMPLE_BYTES, entry.end - entry.begin - at));
      await source.read(entry, at, bytes, signal);
      hash.update(bytes);
    }
  }
  return hash.digest('hex');
}
