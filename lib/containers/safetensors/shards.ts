import type { Steps } from '../../files/event-loop.js';
import { JsonReader } from '../../files/json.js';
import { HqqError } from '../../messages/errors.js';
import { formatError, plain, quote, quoteSome } from '../../messages/text.js';
import { MAX_METADATA_ENTRIES } from './header.js';
import type { SafetensorsLayout } from './layout.js';
import type { SafetensorsFile } from './reader.js';

/** Largest index. That of a 671B model quantized with nineteen keys a layer has some 100 MB; unquantized, 9 MB. */
const MAX_INDEX_BYTES = 128 * 1024 * 1024;

/** Largest index of shards of any size: more must be a sixteenth of them at most. Real ones are below a hundredth. */
const SMALL_INDEX_BYTES = 32 * 1024 * 1024;

/** Most tensors of an index: 20 bytes of text cost over 100 of memory. The model above has 900,000. */
const MAX_INDEX_TENSORS = 1_000_000;

/** Most tensors of shards of any size: a command takes up to 300 MB for them. Models that are not quantized have fewer. */
export const SMALL_TENSORS = 200_000;

/**
 * Bytes that shards must have for each tensor, where these are more: a million empty tensors, in 80 MB of headers and index, would
 * cost a command 900 MB and half a minute. Of real models only those with thousands of experts get there, quantized with nineteen
 * keys a layer: 100,000 bytes for each tensor, at one bit still 10,000.
 */
const TENSOR_BYTES = 4096;

/** Most tensors of a model whose shards have `bytes` in all. */
export function mostTensors(bytes: number): number {
  return Math.min(MAX_INDEX_TENSORS, Math.max(SMALL_TENSORS, Math.floor(bytes / TENSOR_BYTES)));
}

/** Most bytes of the index of such a model. */
export function mostIndexBytes(bytes: number): number {
  return Math.min(MAX_INDEX_BYTES, Math.max(SMALL_INDEX_BYTES, Math.floor(bytes / 16)));
}

/** Most shards. Each is an open file; the largest models have some 200. */
export const MAX_SHARDS = 1_000;

/**
 * Why `name` may not name a shard; undefined when it may. A shard is a file of the index's own folder: anything that reads
 * as a path could make the program read, and the output's twin write, elsewhere.
 */
function shardNameFault(name: string): string | undefined {
  if (/[/\\:]/.test(name)) return 'it is a path, and shards lie beside their index';
  if (/\p{C}/u.test(name)) return 'it has control characters';
  if (Buffer.byteLength(name) > 255) return 'it is longer than a file name can be';
  // An index may not make the output's config.json or tokenizer a shard.
  return /^[^.].*\.safetensors$/.test(name) ? undefined : 'it does not end in .safetensors, or begins with a dot';
}

/**
 * `weight_map` of an index: tensor name to shard name. Checked as hostile input; shard names are plain file names.
 *
 * @param file its path, as messages show it
 * @param shardBytes of all shards
 */
export function parseIndex(bytes: Uint8Array, file: string, shardBytes: number): ReadonlyMap<string, string> {
  const most = mostTensors(shardBytes);
  const reader = new JsonReader(bytes, { file });
  // One string a shard: hundreds of thousands of tensors repeat it.
  const shards = new Map<string, string>();
  let map: Map<string, string> | undefined;
  const seen = new Set<string>();
  const wrong = (message: string) => formatError(file, `${message}.`);
  if (reader.kind() !== 'object') throw wrong('expected the index to be a JSON object with a "weight_map"');
  reader.members((key, at) => {
    if (seen.has(key)) reader.duplicate(key, at);
    seen.add(key);
    if (key !== 'weight_map') return void reader.value();
    const weights = new Map<string, string>();
    if (reader.kind() !== 'object')
      throw wrong('expected "weight_map" to be an object from tensor names to shard names');
    reader.members((tensor, tensorAt) => {
      if (weights.has(tensor)) reader.duplicate(tensor, tensorAt);
      if (weights.size >= most)
        throw wrong(`expected at most ${most} tensors in "weight_map", for shards of ${shardBytes} bytes`);
      if (reader.kind() !== 'string') throw wrong(`expected a shard name for tensor ${quote(tensor)}`);
      const text = reader.string();
      let shard = shards.get(text);
      if (shard === undefined) {
        const fault = shardNameFault(text);
        if (fault !== undefined)
          throw wrong(`the shard name ${quote(text)} of tensor ${quote(tensor)} is refused: ${fault}`);
        if (shards.size >= MAX_SHARDS) throw wrong(`expected at most ${MAX_SHARDS} shards`);
        shards.set(text, (shard = text));
      }
      weights.set(tensor, shard);
    });
    map = weights;
  });
  reader.end();
  if (map === undefined) throw wrong('expected a "weight_map", which says what each shard holds; the index has none');
  if (map.size === 0) throw wrong('expected "weight_map" to name at least one tensor, got none');
  return map;
}

const STRANGERS = 'Index and shards do not belong together; fetch both again.';

/** Most bytes of the headers of all shards together. Those of the model above have some 150 MB. */
const MAX_HEADERS_BYTES = 256 * 1024 * 1024;

/**
 * Holds shards against their index while they are opened one by one: each tensor must be in exactly the shard that the index
 * names. The first shard that is not so ends it, so that shards cost no more than their index says.
 */
export class ShardCheck {
  readonly #indexPath: string;
  readonly #weightMap: ReadonlyMap<string, string>;
  readonly #files = new Map<string, SafetensorsFile>();
  #tensors = 0;
  #headers = 0;
  #metadata = 0;

  /** @param indexPath as messages show it */
  constructor(indexPath: string, weightMap: ReadonlyMap<string, string>) {
    this.#indexPath = indexPath;
    this.#weightMap = weightMap;
  }

  /** The next shard. */
  add(file: SafetensorsFile): void {
    const { name, path, tensors, metadata, size } = file;
    for (const tensor of tensors.keys()) if (this.#weightMap.get(tensor) !== name) this.#refuse(file, tensor);
    this.#files.set(name, file);
    this.#tensors += tensors.size;
    const [first] = tensors.values();
    this.#headers += first?.begin ?? size;
    this.#metadata += metadata.size;
    if (this.#headers > MAX_HEADERS_BYTES) {
      const message = `the headers of all shards up to this one have ${this.#headers} bytes`;
      throw formatError(path, `${message}; at most ${MAX_HEADERS_BYTES} are read.`);
    }
    if (this.#metadata <= MAX_METADATA_ENTRIES) return;
    throw formatError(
      path,
      `expected at most ${MAX_METADATA_ENTRIES} entries of "__metadata__" in all shards together.`,
    );
  }

  /** No shard is left: nothing may be missing. */
  end(): void {
    // Every tensor so far is one that the index names, and in one shard.
    if (this.#tensors === this.#weightMap.size) return;
    for (const [tensor, shard] of this.#weightMap) {
      if (this.#files.get(shard)?.tensors.has(tensor)) continue;
      const message = `tensor ${quote(tensor)} should be in ${plain(shard)}, but no shard has it`;
      throw formatError(this.#indexPath, `${message}. ${STRANGERS}`);
    }
  }

  #refuse({ name, path, tensors }: SafetensorsFile, tensor: string): never {
    const shard = this.#weightMap.get(tensor);
    if (shard === undefined) {
      const names = quoteSome([...tensors.keys()].filter((other) => !this.#weightMap.has(other)));
      throw formatError(this.#indexPath, `"weight_map" does not name ${names} of ${plain(name)}. ${STRANGERS}`);
    }
    if (this.#files.get(shard)?.tensors.has(tensor)) {
      throw formatError(path, `tensor ${quote(tensor)} is in ${plain(shard)} too. A tensor belongs to one shard.`);
    }
    const message = `tensor ${quote(tensor)} should be in ${plain(shard)}, but it is in ${plain(name)}`;
    throw formatError(this.#indexPath, `${message}. ${STRANGERS}`);
  }
}

/**
 * Throws when a model that is to be written would not be read again: what its headers say is known before its weights are.
 *
 * @param shards by file name
 */
export function* checkReadable(shards: ReadonlyMap<string, SafetensorsLayout>): Steps<void> {
  let [tensors, bytes, headers, index] = [0, 0, 0, 0];
  for (const [shard, { header, entries, fileSize }] of shards) {
    tensors += entries.size;
    bytes += fileSize;
    headers += header.byteLength;
    for (const name of entries.keys()) {
      index += Buffer.byteLength(name) + shard.length + '    "": "",\n'.length;
      yield;
    }
  }
  const limits = [
    [tensors, mostTensors(bytes), 'tensors'],
    [headers, MAX_HEADERS_BYTES, 'bytes of headers'],
    [index, mostIndexBytes(bytes), 'bytes of index'],
  ] as const;
  for (const [got, most, what] of limits) {
    if (got <= most) continue;
    const message = `Expected a model of at most ${most} ${what}, for shards of ${bytes} bytes, but the output would have ${got}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}: it could not be read again. Exclude small layers.`);
  }
}
