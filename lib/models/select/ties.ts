import type { TensorEntry, TensorSource } from '../../containers/container.js';
import { layerOf } from '../../containers/names.js';
import { plain } from '../../messages/text.js';
import type { Architecture } from './architecture.js';

// Modules that share a matrix, of which a file holds one name, or both.

/** Bytes of each of two tensors that are compared at a time. */
const CHUNK = 4 << 20;

/** Two names of a matrix, as transformers has them, and what the files hold of them. */
export interface TiedPair {
  readonly target: string;
  readonly source: string;
  readonly targetEntry: TensorEntry | undefined;
  readonly sourceEntry: TensorEntry | undefined;
  /** Whether the target is a linear layer. */
  readonly linear: boolean;
}

/** The pairs of a model, as far as its files have one of the two. */
export function tiedPairs(known: Architecture, entries: ReadonlyMap<string, TensorEntry>): readonly TiedPair[] {
  if (known.ties.length === 0) return [];
  const held = new Map<string, TensorEntry>();
  for (const entry of entries.values()) {
    const layer = layerOf(entry.name);
    const module = layer === entry.name ? undefined : known.moduleOf(layer);
    if (module !== undefined) held.set(module, entry);
  }
  const pairs: TiedPair[] = [];
  for (const [target, source] of known.tiedNames(held.keys())) {
    const [targetEntry, sourceEntry] = [held.get(target), held.get(source)];
    if (!targetEntry && !sourceEntry) continue;
    const kind = known.kindOfModule(target);
    pairs.push({ ...{ target, source, targetEntry, sourceEntry }, linear: kind !== 'embedding' && kind !== 'other' });
  }
  return pairs;
}

/** Says of every pair that the files hold twice, and differently, what becomes of it. */
export async function tieNotes(
  source: TensorSource,
  pairs: readonly TiedPair[],
  signal?: AbortSignal,
): Promise<readonly string[]> {
  const notes: string[] = [];
  for (const { targetEntry: a, sourceEntry: b } of pairs) {
    if (a === undefined || b === undefined || (await areEqual(source, a, b, signal))) continue;
    notes.push(
      `${plain(a.name)} and ${plain(b.name)} differ, though the configuration ties them: transformers puts the second in place of ` +
        'the first. If they are not to be tied, say so in config.json ("tie_word_embeddings": false).',
    );
  }
  return notes;
}

async function areEqual(source: TensorSource, a: TensorEntry, b: TensorEntry, signal?: AbortSignal): Promise<boolean> {
  const size = a.end - a.begin;
  if (a.type.name !== b.type.name || size !== b.end - b.begin || String(a.shape) !== String(b.shape)) return false;
  const [left, right] = [Buffer.allocUnsafe(Math.min(size, CHUNK)), Buffer.allocUnsafe(Math.min(size, CHUNK))];
  for (let at = 0; at < size; at += CHUNK) {
    const count = Math.min(CHUNK, size - at);
    const [x, y] = [left.subarray(0, count), right.subarray(0, count)];
    await Promise.all([source.read(a, at, x, signal), source.read(b, at, y, signal)]);
    if (!x.equals(y)) return false;
  }
  return true;
}
