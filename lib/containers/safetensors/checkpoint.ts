import * as fs from 'node:fs/promises';
import { basename, join } from 'node:path';
import { kindOf, readWhole, withPath } from '../../files/io.js';
import { parseJson } from '../../files/json.js';
import { type Listing, listFolder } from '../../files/model-folder.js';
import { HqqError } from '../../messages/errors.js';
import { compareBytes, formatError, plain, quoteSome } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import type { TensorEntry, TensorSource } from '../container.js';
import { ADAPTER_CONFIG } from './adapter.js';
import { CheckpointEnvelope, CONFIG_NAME, type ConfigFile } from './envelope.js';
import { FOREIGN_CONFIG } from './foreign.js';
import { SafetensorsFile } from './reader.js';
import { type Reading, readingOf } from './reading.js';
import { MAX_SHARDS, mostIndexBytes, parseIndex, ShardCheck } from './shards.js';

/** Largest config.json. Real ones have a few kilobytes, with the labels of a large classifier a few megabytes. */
const MAX_CONFIG_BYTES = 16 * 1024 * 1024;

const WEIGHTS_NAME = 'model.safetensors';
const INDEX_NAME = 'model.safetensors.index.json';

/** Weights as Mistral's own code has them. */
const CONSOLIDATED = /^consolidated\b.*\.safetensors$/;

/** One model, saved twice, differs in fewer than one of so many tensors. */
const ONE_OF = 10;

/** Of paths below the folder, those of safetensors files in the folder itself. */
const isShardName = (path: string) => path.endsWith('.safetensors') && !path.includes('/');

interface Parts {
  readonly files: readonly SafetensorsFile[];
  readonly config?: ConfigFile | undefined;
  readonly indexName?: string | undefined;
  readonly otherFiles?: readonly string[];
  readonly skippedFiles?: readonly string[];
}

/** A model on disk: one safetensors file, or a Hugging Face model folder. Open until `close`. */
export class Checkpoint implements TensorSource {
  readonly container = 'safetensors';
  readonly path: string;
  readonly kind: 'file' | 'folder';
  /** Sorted by name. */
  readonly files: readonly SafetensorsFile[];
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly envelope: CheckpointEnvelope;
  readonly #files: ReadonlyMap<string, SafetensorsFile>;
  /** Reads what is not in the files as it is. */
  readonly #reading: Reading;

  private constructor(path: string, folder: string | undefined, { files, ...around }: Parts) {
    this.path = path;
    this.kind = folder === undefined ? 'file' : 'folder';
    this.files = files;
    this.#files = new Map(files.map((file) => [file.name, file]));
    const entries = new Map<string, TensorEntry>();
    for (const file of files) for (const entry of file.tensors.values()) entries.set(entry.name, entry);
    const metadata = new Map(files.map((file) => [file.name, file.metadata]));
    this.#reading = readingOf(entries, around.config?.value);
    const { origin } = this.#reading;
    this.entries = this.#reading.entries;
    const envelope = new CheckpointEnvelope({
      ...{ path, folder, metadata, ...around },
      ...(origin === undefined ? {} : { origin }),
    });
    // What is read is a model of floats: nobody is told otherwise.
    this.envelope = origin
      ? envelope.replace({ layers: [], set: {}, drop: ['quantization_config', 'compression_config'] })
      : envelope;
  }

  /**
   * Opens a `.safetensors` file, or a folder with (in this order, as transformers looks) `model.safetensors`, shards and
   * `model.safetensors.index.json`, or a single safetensors file of another name.
   *
   * @throws {HqqError} `ERR_IO` for what is not there or cannot be read, `ERR_CHECKPOINT_FORMAT` for what breaks the format,
   * `ERR_CHECKPOINT_CONTENT` for a folder without safetensors or with several models.
   */
  static async open(path: string): Promise<Checkpoint> {
    const stat = await withPath('Cannot read', path, () => fs.stat(path));
    if (stat.isDirectory()) return openFolder(path, (parts) => new Checkpoint(path, path, parts));
    if (!stat.isFile()) {
      const got = `Expected a .safetensors file or a model folder, got ${kindOf(stat)}`;
      throw new HqqError('ERR_IO', `Cannot read ${plain(path)}. ${got}.`);
    }
    if (path.endsWith('.json')) {
      const message = 'Expected a .safetensors file or a model folder. Pass the folder itself';
      throw new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(path)}: ${message}.`);
    }
    return new Checkpoint(path, undefined, { files: [await SafetensorsFile.open(path)] });
  }

  async read(entry: TensorEntry, at: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    const reading = this.#reading.read(entry, at, into, this, signal);
    if (reading) return reading;
    await this.#file(entry.file).read(entry.begin + at, into, signal);
  }

  readSync(entry: TensorEntry, at: number, into: Uint8Array): void {
    if (this.#reading.readSync(entry, at, into, this)) return;
    this.#file(entry.file).readSync(entry.begin + at, into);
  }

  async readSpan(file: string, begin: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#file(file).read(begin, into, signal);
  }

  async close(): Promise<void> {
    await Promise.all(this.files.map((file) => file.close()));
  }

  #file(name: string): SafetensorsFile {
    const file = this.#files.get(name);
    if (file !== undefined) return file;
    throw new HqqError('ERR_INVALID_ARGUMENT', `Expected a file of ${plain(this.path)}, got ${quoteSome([name])}.`);
  }
}

async function openFolder(folder: string, build: (parts: Parts) => Checkpoint): Promise<Checkpoint> {
  const listing = await listFolder(folder);
  const { names, indexName, weightMap } = await chooseWeights(folder, listing);
  const config = await readConfig(folder, listing);
  const files: SafetensorsFile[] = [];
  try {
    const check =
      indexName !== undefined && weightMap !== undefined
        ? new ShardCheck(join(folder, indexName), weightMap)
        : undefined;
    for (const name of names) {
      const file = await SafetensorsFile.open(join(folder, name));
      files.push(file);
      check?.add(file);
    }
    check?.end();
  } catch (error) {
    await Promise.all(files.map((file) => file.close()));
    throw error;
  }
  const used = new Set([...names, indexName, CONFIG_NAME]);
  // An adapter's description goes where its weights go: with it alone, transformers loads the model that it names, not this one.
  const described = (name: string) => basename(name) === ADAPTER_CONFIG || FOREIGN_CONFIG.test(basename(name));
  const goes = new Set([...listing.skipped, ...listing.files.filter(described)]);
  return build({
    files,
    config,
    indexName,
    otherFiles: listing.files.filter((name) => !used.has(name) && !goes.has(name)),
    skippedFiles: [...goes].filter((name) => !used.has(name)).sort(compareBytes),
  });
}

/**
 * A folder from elsewhere must not have a key in JSON read and copied as a part of its own. Weights may be links to anywhere:
 * people keep large files on other disks, and what is no safetensors file is refused.
 */
function demandOwn(folder: string, { strays }: Listing, name: string): void {
  if (!strays.has(name)) return;
  const message = `Expected ${plain(name)} to be a file of ${plain(folder)}, or a link into it or its Hugging Face cache`;
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}, got a link to elsewhere. Put the file itself there.`);
}

interface Weights {
  readonly names: readonly string[];
  readonly indexName?: string;
  readonly weightMap?: ReadonlyMap<string, string>;
}

/** Which files of the folder are the model. `model.safetensors` wins over an index, as in transformers. */
async function chooseWeights(folder: string, listing: Listing): Promise<Weights> {
  const present = new Set(listing.skipped);
  if (present.has(WEIGHTS_NAME)) {
    if (present.has(INDEX_NAME)) await demandOneModel(folder, listing);
    return { names: [WEIGHTS_NAME] };
  }
  if (present.has(INDEX_NAME)) {
    demandOwn(folder, listing, INDEX_NAME);
    const weightMap = await readIndex(folder, listing);
    const names = [...new Set(weightMap.values())].sort(compareBytes);
    const missing = names.filter((name) => !present.has(name));
    if (missing.length > 0) {
      const which = `${quoteSome(missing)} ${missing.length === 1 ? 'is' : 'are'} missing`;
      const advice = 'The download is incomplete; fetch what is missing';
      throw formatError(join(folder, INDEX_NAME), `${which}: ${missing.length} of ${names.length} shards. ${advice}.`);
    }
    return { names, indexName: INDEX_NAME, weightMap };
  }
  const names = listing.skipped.filter(isShardName);
  const where = plain(folder);
  const content = (message: string) => new HqqError('ERR_CHECKPOINT_CONTENT', message);
  if (names.length > 0 && names.every((name) => CONSOLIDATED.test(name))) {
    const what = `${quoteSome(names)}, in the names of Mistral's own code, which transformers and hqq/runtime do not know`;
    const advice = `Fetch the model's ${WEIGHTS_NAME}, or its shards with ${INDEX_NAME}; or pass a file itself, to quantize its matrices`;
    throw content(`${where} has its weights in ${what}. ${advice}.`);
  }
  if (names.length === 1) return { names };
  if (names.length > 1) {
    const several = `${names.length} safetensors files but no ${INDEX_NAME}`;
    throw content(`${where} holds ${several}: ${quoteSome(names)}. Pass one of them.`);
  }
  const other = [...listing.skipped, ...listing.files].find((name) =>
    /\.(bin|pth|pt|ckpt|gguf|h5|onnx|msgpack)$/i.test(name),
  );
  if (other !== undefined) {
    const advice = 'Convert the model to safetensors first (save_pretrained does)';
    throw content(`${where} has no safetensors file, but ${plain(other)}. ${advice}.`);
  }
  throw content(`${where} has no safetensors file. Expected ${WEIGHTS_NAME}, or shards with ${INDEX_NAME}.`);
}

async function readIndex(folder: string, listing: Listing): Promise<ReadonlyMap<string, string>> {
  const bytes = await shardBytes(folder, listing);
  const path = join(folder, INDEX_NAME);
  return parseIndex(await readWhole(path, mostIndexBytes(bytes)), path, bytes);
}

/**
 * Refuses a folder that holds two: `model.safetensors`, and all shards of an index, with other tensors. People put what one tool has
 * made beside what another has. The same model, saved twice, is one: with a tied head in one of both, say.
 */
async function demandOneModel(folder: string, listing: Listing): Promise<void> {
  if (listing.strays.has(INDEX_NAME)) return;
  const weightMap = await readIndex(folder, listing).catch((error: unknown) => {
    if (error instanceof HqqError) return undefined; // what is left of an index gives no model
    throw error;
  });
  if (weightMap === undefined) return;
  const shards = new Set(weightMap.values());
  const present = new Set(listing.skipped);
  if (shards.has(WEIGHTS_NAME) || ![...shards].every((name) => present.has(name))) return;
  const file = await SafetensorsFile.open(join(folder, WEIGHTS_NAME));
  await file.close();
  const unnamed = [...file.tensors.keys()].filter((name) => !weightMap.has(name));
  const missing = weightMap.size - (file.tensors.size - unnamed.length);
  if ((unnamed.length + missing) * ONE_OF < weightMap.size) return;
  const strange =
    unnamed.length > 0 ? `holds ${quoteSome(unnamed, 2)}` : `lacks ${missing} of ${weightMap.size} tensors`;
  const message = `${plain(folder)} holds two models: ${WEIGHTS_NAME} ${strange}, and does not belong to the ${plural(shards.size, 'shard')} of ${INDEX_NAME}`;
  const advice = 'transformers would load it in their place. Move away what is not the model, or pass that file itself';
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}. ${advice}.`);
}

/** Bytes of what may be shards, before their index is read. */
async function shardBytes(folder: string, { skipped }: Listing): Promise<number> {
  let bytes = 0;
  for (const name of skipped.filter(isShardName).slice(0, MAX_SHARDS)) {
    const stat = await fs.stat(join(folder, name)).catch(() => undefined); // of those that matter, opening says what is wrong
    if (stat?.isFile()) bytes += stat.size;
  }
  return bytes;
}

async function readConfig(folder: string, listing: Listing): Promise<ConfigFile | undefined> {
  // A link that leads nowhere is not the same as no config: reading it says so.
  if (!listing.files.includes(CONFIG_NAME) && !listing.skipped.includes(CONFIG_NAME)) return undefined;
  demandOwn(folder, listing, CONFIG_NAME);
  const path = join(folder, CONFIG_NAME);
  const bytes = await readWhole(path, MAX_CONFIG_BYTES);
  const value = parseJson(bytes, { file: path, allowNonFinite: true });
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
  if (!isObject) throw formatError(path, 'expected a JSON object.');
  return { text: bytes.toString('utf8'), value: value as Readonly<Record<string, unknown>> };
}
