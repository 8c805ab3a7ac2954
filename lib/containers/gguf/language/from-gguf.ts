import { createHash } from 'node:crypto';
import { HqqError } from '../../../messages/errors.js';
import { plain, quote } from '../../../messages/text.js';
import type {
  Companion,
  Envelope,
  EnvelopeChange,
  LinearSite,
  OtherTensor,
  TensorEntry,
  TensorSource,
} from '../../container.js';
import type { KnownModules } from '../../known-modules.js';
import type { GgufEnvelope } from '../envelope.js';
import { Facts } from './fields.js';
import { FAMILIES, type Family, ourName, turnedHeads } from './names.js';
import { scalingOf } from './rope.js';
import { halved } from './rows.js';
import { tokenizerFiles } from './tokenizer-from-gguf.js';
import { type Seen, TensorView } from './view.js';

type Json = Readonly<Record<string, unknown>>;

/** Tensors that are no weights. */
const FACTORS = 'rope_freqs.weight';

/** Makes what surrounds the tensors of a folder that has this config.json. */
type Build = (config: Json) => Envelope;

/**
 * A language model of a GGUF file as it lies in a Hugging Face folder, quantized as it is.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a model that is not known there.
 */
export async function asFolder(source: TensorSource, build: Build): Promise<TensorSource> {
  const envelope = source.envelope as GgufEnvelope;
  const where = plain(source.path);
  const refuse = (message: string) => new HqqError('ERR_CHECKPOINT_CONTENT', `${where}: ${message}.`);
  const architecture = envelope.scalar('general.architecture', refuse);
  const family = FAMILIES.find((one) => one.architecture === architecture);
  if (family === undefined) {
    const names = [...new Set(FAMILIES.map((one) => one.architecture))].join(', ');
    const got = architecture === undefined ? 'none' : quote(String(architecture));
    const advice = 'Dequantizing into a GGUF file (--out back.gguf) takes any architecture';
    throw refuse(
      `Expected general.architecture to be one of ${names}, as a model folder is made of, got ${got}. ${advice}`,
    );
  }
  const facts = new Facts((key) => envelope.scalar(key, refuse), source.path);
  const own = (key: string) => `${family.architecture}.${key}`;
  const config = await configOf(source, family, facts, own, refuse);
  const tensors = [...source.entries.values()].flatMap((entry) => seenOf(entry, family, config.head_dim, refuse));
  const made = build(config);
  let files: ReadonlyMap<string, string> | undefined;
  const tokenizer = () => {
    files ??= tokenizerFiles(envelope, refuse);
    return files;
  };
  const surroundings = new FolderEnvelope(made, tokenizer, envelope.fingerprint);
  return new TensorView(source, {
    ...{ container: 'safetensors', kind: 'folder', file: 'model.safetensors', envelope: surroundings, tensors },
  });
}

type Refuse = (message: string) => HqqError;

async function configOf(
  source: TensorSource,
  { className, modelType, architecture }: Family,
  facts: Facts,
  own: (key: string) => string,
  refuse: Refuse,
) {
  const { entries } = source;
  const heads = facts.count(own('attention.head_count'));
  const hidden = facts.count(own('embedding_length'));
  const headDim = facts.count(own('attention.key_length'), Math.floor(hidden / heads));
  const theta = facts.number(own('rope.freq_base'), 10000);
  if (facts.count(own('attention.value_length'), headDim) !== headDim)
    throw facts.wrong(own('attention.value_length'), `as attention.key_length, ${headDim}`);
  if (facts.count(own('rope.dimension_count'), headDim) !== headDim)
    throw facts.wrong(own('rope.dimension_count'), `all numbers of a head, ${headDim}`);
  if (headDim % 2 !== 0) throw facts.wrong(own('attention.key_length'), 'even', headDim);
  const type = facts.get(own('rope.scaling.type'));
  if (type !== undefined && type !== 'none') throw facts.wrong(own('rope.scaling.type'), 'none');
  if (facts.get(own('expert_count')) !== undefined && facts.get(own('expert_count')) !== 0)
    throw facts.wrong(own('expert_count'), '0');
  const embedding = entries.get('token_embd.weight');
  if (embedding?.shape.length !== 2) throw refuse('Expected a matrix token_embd.weight, got none');
  const scaling = await scalingIn(source, headDim, theta, refuse);
  const id = (name: string) => {
    const value = facts.get(`tokenizer.ggml.${name}_token_id`);
    return typeof value === 'number' ? { [`${name}_token_id`]: value } : {};
  };
  const bias = (name: string) => entries.has(`blk.0.${name}.bias`);
  return {
    ...{ architectures: [className], model_type: modelType },
    ...{ hidden_size: hidden, intermediate_size: facts.count(own('feed_forward_length')) },
    ...{ num_hidden_layers: facts.count(own('block_count')), num_attention_heads: heads },
    ...{ num_key_value_heads: facts.count(own('attention.head_count_kv'), heads), head_dim: headDim },
    ...{ vocab_size: embedding.shape[0]!, max_position_embeddings: facts.count(own('context_length')) },
    ...{ rms_norm_eps: facts.number(own('attention.layer_norm_rms_epsilon')), hidden_act: 'silu', rope_theta: theta },
    ...(scaling === undefined ? {} : { rope_scaling: scaling }),
    tie_word_embeddings: !entries.has('output.weight'),
    ...(architecture === 'qwen2' ? {} : { attention_bias: bias('attn_output') || bias('attn_q') }),
    ...(architecture === 'llama' ? { mlp_bias: bias('ffn_down') } : {}),
    ...{ ...id('bos'), ...id('eos') },
  };
}

async function scalingIn(source: TensorSource, headDim: number, theta: number, refuse: Refuse) {
  const entry = source.entries.get(FACTORS);
  if (entry === undefined) return undefined;
  if (entry.type.float !== 'float32' || entry.shape.length !== 1 || entry.shape[0] !== headDim / 2)
    throw refuse(
      `Expected ${FACTORS} to be ${headDim / 2} numbers of float32, got ${entry.shape.join(' x ')} of ${entry.type.name}`,
    );
  const factors = new Float32Array(headDim / 2);
  await source.read(entry, 0, new Uint8Array(factors.buffer));
  const scaling = scalingOf(factors, headDim, theta);
  if (scaling === undefined)
    throw refuse(`Expected ${FACTORS} to stretch positions as Llama 3 does, got other factors`);
  return {
    ...{ rope_type: 'llama3', factor: scaling.factor, low_freq_factor: scaling.lowFactor },
    ...{ high_freq_factor: scaling.highFactor, original_max_position_embeddings: scaling.trained },
  };
}

function seenOf(entry: TensorEntry, { permuted }: Family, headDim: number, refuse: Refuse): readonly Seen[] {
  if (entry.name === FACTORS) return [];
  const name = ourName(entry.name);
  if (name === undefined) throw refuse(`The model has a tensor ${quote(entry.name)}, which is not known`);
  const { type, shape } = entry;
  const turned = permuted && turnedHeads(name) !== undefined && shape.length > 0;
  if (turned && shape[0]! % headDim !== 0)
    throw refuse(`Expected ${quote(entry.name)} to have heads of ${headDim} rows, got ${shape.join(' x ')}`);
  return [{ name, type, shape, of: entry, rows: turned ? halved(headDim) : undefined }];
}

/** What surrounds the tensors of a folder that is made of a GGUF file: config.json, and the tokenizer's files, made when they are asked for. */
class FolderEnvelope implements Envelope {
  readonly #made: Envelope;
  readonly #tokenizer: () => ReadonlyMap<string, string>;
  readonly #fingerprint: string;

  constructor(made: Envelope, tokenizer: () => ReadonlyMap<string, string>, fingerprint: string) {
    this.#made = made;
    this.#tokenizer = tokenizer;
    this.#fingerprint = fingerprint;
  }

  get config(): Json | undefined {
    return this.#made.config;
  }

  get notes(): readonly string[] {
    return this.#made.notes;
  }

  get fingerprint(): string {
    return createHash('sha256').update(this.#fingerprint).update(this.#made.fingerprint).digest('hex');
  }

  metadata(file: string): ReadonlyMap<string, string> {
    return this.#made.metadata!(file);
  }

  obstacle(): undefined {}

  linears(entries: ReadonlyMap<string, TensorEntry>, known?: KnownModules): Iterable<LinearSite | OtherTensor> {
    return this.#made.linears(entries, known);
  }

  /** Asked for an output, whose tokenizer must be known before hours of weights are written. */
  replace(change: EnvelopeChange): FolderEnvelope {
    this.#tokenizer();
    return new FolderEnvelope(this.#made.replace(change), this.#tokenizer, this.#fingerprint);
  }

  *companions(files: ReadonlyMap<string, Iterable<TensorEntry>>): Generator<Companion> {
    yield* this.#made.companions(files);
    for (const [name, text] of this.#tokenizer()) yield { name, text };
  }
}
