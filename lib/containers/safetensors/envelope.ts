import { basename, join } from 'node:path';
import { compareBytes, plain, quoteSome } from '../../messages/text.js';
import type {
  Companion,
  Envelope,
  EnvelopeChange,
  LinearSite,
  Obstacle,
  OtherTensor,
  TensorEntry,
} from '../container.js';
import type { KnownModules } from '../known-modules.js';
import { ADAPTER_CONFIG, isAdapterFile } from './adapter.js';
import { withMember, withoutMember, withValue } from './config-text.js';
import { FOREIGN_CONFIG } from './foreign.js';
import { linearsOf } from './linears.js';
import { obstacleOf } from './obstacle.js';

export const CONFIG_NAME = 'config.json';

/** `config.json` as it was found. Python's `NaN` and `Infinity` are read as numbers; `text` is what to edit for exactness. */
export interface ConfigFile {
  readonly text: string;
  readonly value: Readonly<Record<string, unknown>>;
}

interface Surroundings {
  readonly path: string;
  readonly folder: string | undefined;
  /** `__metadata__` of each file, by name. */
  readonly metadata: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** As in `Envelope`. */
  readonly origin?: string;
  readonly config?: ConfigFile | undefined;
  readonly indexName?: string | undefined;
  readonly otherFiles?: readonly string[];
  readonly skippedFiles?: readonly string[];
}

/** What surrounds the tensors of a safetensors file, or of a Hugging Face folder. */
export class CheckpointEnvelope implements Envelope {
  /** The model's folder; undefined for a single file. */
  readonly folder: string | undefined;
  /** Undefined for a single file, and for a folder without one. */
  readonly configFile: ConfigFile | undefined;
  /** File name of the index; undefined when the model is one file. */
  readonly indexName: string | undefined;
  /** Every other file of the folder that belongs to the model: paths relative to it, with `/`. */
  readonly otherFiles: readonly string[];
  /** Files of the folder that are not to be carried over: weights in other formats, what is not a regular file, links elsewhere. */
  readonly skippedFiles: readonly string[];
  readonly #given: Surroundings;

  constructor(given: Surroundings) {
    this.#given = given;
    this.folder = given.folder;
    this.configFile = given.config;
    this.indexName = given.indexName;
    this.otherFiles = given.otherFiles ?? [];
    this.skippedFiles = given.skippedFiles ?? [];
  }

  readonly tellsClass = true;

  get config(): Readonly<Record<string, unknown>> | undefined {
    return this.configFile?.value;
  }

  obstacle(entries: ReadonlyMap<string, TensorEntry>): Obstacle | undefined {
    const { path, metadata } = this.#given;
    return obstacleOf(entries, { path, metadata, config: this.config });
  }

  get origin(): string | undefined {
    return this.#given.origin;
  }

  get notes(): readonly string[] {
    const { origin } = this;
    const notes: string[] = origin === undefined ? [] : [origin];
    if (!this.configFile) {
      const where = this.folder === undefined ? 'A single file has' : `${plain(this.#given.path)} has`;
      notes.push(
        `${where} no config.json: Python needs one, with a quantization_config, beside the output to load it.`,
      );
    }
    const ofAdapter = (name: string) => isAdapterFile(name) || basename(name) === ADAPTER_CONFIG;
    const adapters = this.skippedFiles.filter(ofAdapter);
    const foreign = this.skippedFiles.filter((name) => FOREIGN_CONFIG.test(basename(name)));
    const others = this.skippedFiles.filter((name) => !ofAdapter(name) && !foreign.includes(name));
    if (others.length > 0) {
      notes.push(
        `Not carried over (weights that are not the model's, not regular files, links that lead elsewhere): ${quoteSome(others)}.`,
      );
    }
    if (foreign.length > 0) {
      notes.push(
        `Not carried over, as what another tool says of how it has quantized the model: ${quoteSome(foreign)}.`,
      );
    }
    if (adapters.length > 0) {
      notes.push(
        `Not carried over, as what belongs to an adapter: ${quoteSome(adapters)}. To have it in, merge it into the model first; or load ` +
          'it onto the output, from where it is (peft: PeftModel.from_pretrained).',
      );
    }
    return notes;
  }

  get fingerprint(): string {
    const metadata = [...this.#given.metadata].map(([name, pairs]) => [name, [...pairs]]);
    return JSON.stringify([this.configFile?.text ?? null, this.indexName ?? null, metadata]);
  }

  /** `__metadata__` of a file that is made from that of the same name, with the `format` that transformers 4.46 demands. */
  metadataOf(file: string): ReadonlyMap<string, string> {
    return new Map([...(this.#given.metadata.get(file) ?? []), ['format', 'pt']]);
  }

  metadata(file: string): ReadonlyMap<string, string> {
    return this.#given.metadata.get(file) ?? new Map();
  }

  linears(entries: ReadonlyMap<string, TensorEntry>, known?: KnownModules): Iterable<LinearSite | OtherTensor> {
    return linearsOf(entries, this.config, known);
  }

  replace({ set, drop, dtype, metadata: texts }: EnvelopeChange): CheckpointEnvelope {
    const metadata = new Map(this.#given.metadata);
    for (const [file, pairs] of texts ?? []) metadata.set(file, new Map(Object.entries(pairs)));
    if (!this.configFile) return texts ? new CheckpointEnvelope({ ...this.#given, metadata }) : this;
    let { text } = this.configFile;
    const value: Record<string, unknown> = { ...this.configFile.value };
    for (const name of drop) {
      text = withoutMember(text, name);
      delete value[name];
    }
    for (const [name, member] of Object.entries(set)) {
      text = withMember(text, name, member);
      value[name] = member;
    }
    if (dtype !== undefined) {
      for (const [part, name] of dtypeMembers(value)) {
        text = withValue(text, part === undefined ? [name] : [part, name], dtype);
        if (part === undefined) value[name] = dtype;
        else value[part] = { ...(value[part] as object), [name]: dtype };
      }
    }
    return new CheckpointEnvelope({ ...this.#given, metadata, config: { text, value } });
  }

  *companions(files: ReadonlyMap<string, Iterable<TensorEntry>>): Generator<Companion> {
    if (this.folder === undefined) return;
    if (this.indexName !== undefined) yield { name: this.indexName, text: indexText(files) };
    if (this.configFile) yield { name: CONFIG_NAME, text: this.configFile.text };
    for (const name of this.otherFiles) yield { name, copyOf: join(this.folder, name) };
  }
}

/** Members of config.json that say the type of the weights: of the model (without a part), and of its parts, `text_config` and so on. */
function dtypeMembers(
  config: Readonly<Record<string, unknown>>,
): readonly (readonly [part: string | undefined, name: string])[] {
  const namesIn = (part: Readonly<Record<string, unknown>>) =>
    ['torch_dtype', 'dtype'].filter((name) => typeof part[name] === 'string');
  const parts = Object.entries(config).flatMap(([part, value]) => {
    if (!part.endsWith('_config') || typeof value !== 'object' || value === null || Array.isArray(value)) return [];
    return namesIn(value as Readonly<Record<string, unknown>>).map((name) => [part, name] as const);
  });
  return [...namesIn(config).map((name) => [undefined, name] as const), ...parts];
}

/** The index of the shards, as transformers writes it. */
function indexText(shards: ReadonlyMap<string, Iterable<TensorEntry>>): string {
  const pairs: [tensor: string, shard: string][] = [];
  let size = 0;
  for (const [shard, entries] of shards) {
    for (const { name, begin, end } of entries) {
      pairs.push([name, shard]);
      size += end - begin;
    }
  }
  pairs.sort((a, b) => compareBytes(a[0], b[0]));
  // Not through an object: names that are whole numbers would come first, and "__proto__" not at all.
  const lines = pairs.map(([tensor, shard]) => `    ${JSON.stringify(tensor)}: ${JSON.stringify(shard)}`);
  return `{\n  "metadata": {\n    "total_size": ${size}\n  },\n  "weight_map": {\n${lines.join(',\n')}\n  }\n}\n`;
}
