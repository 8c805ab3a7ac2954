import { basename, join } from 'node:path';
import { HqqError, show } from '../../../messages/errors.js';
import { plain, quote } from '../../../messages/text.js';
import type { TensorEntry, TensorSource } from '../../container.js';
import { storedType } from '../../stored-types.js';
import { FILE_TYPE_KEY, FILE_TYPES, GgufEnvelope } from '../envelope.js';
import type { WrittenValue } from '../values.js';
import { Facts } from './fields.js';
import { FAMILIES, type Family, orderOf, theirName, turnedHeads } from './names.js';
import { headerOf } from './pairs.js';
import { type Llama3Scaling, llama3Factors } from './rope.js';
import { asList, interleaved } from './rows.js';
import { readTokenizer } from './tokenizer-files.js';
import { tokenizerPairs } from './tokenizer-to-gguf.js';
import { type Seen, TensorView } from './view.js';

/** What those can do whose model is none of these. */
const ADVICE =
  "Convert it with llama.cpp's convert_hf_to_gguf.py to an F16 GGUF file, which hqq quantizes whatever it is";

/** Computed from the configuration on both sides. */
const IGNORED = /(^|\.)rotary_emb\.inv_freq$/;

/** A model as its configuration has it. */
interface Shape {
  readonly family: Family;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly theta: number;
  readonly scaling: Llama3Scaling | undefined;
  readonly tied: boolean;
  /** Positions beyond which each sees only those before it that are nearer; undefined: it sees all. */
  readonly window: number | undefined;
}

/**
 * A language model of a Hugging Face folder as it lies in a GGUF file; a lone file stays what it is. Nothing is guessed: what is not known is refused by name.
 *
 * @param weightsOnly Whether nothing is written of it, so that it needs no tokenizer.
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT`
 */
export async function asGguf(source: TensorSource, weightsOnly = false): Promise<TensorSource> {
  const { config } = source.envelope;
  const refuse = (message: string) =>
    new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(source.path)}: ${message}. ${ADVICE}.`);
  if (source.kind !== 'folder') return source; // a file of matrices, which stays one
  if (config === undefined)
    throw refuse('Expected a model folder with config.json and tokenizer.json, which a GGUF file holds, got none');
  if ((config.quantization_config ?? undefined) !== undefined)
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `${plain(source.path)}: Expected a model of floating-point weights, but its config.json says that it is quantized already. ` +
        'Make a folder of floats of it first (hqq dequantize), or begin with the original.',
    );
  const obstacle = source.envelope.obstacle(source.entries);
  if (obstacle?.kind === 'quantized' || obstacle?.kind === 'declared')
    throw refuse(`Expected a model of floating-point weights, but it ${obstacle.what}`);
  const facts = new Facts(
    (name) => (Object.hasOwn(config, name) ? config[name] : undefined),
    join(source.path, 'config.json'),
  );
  const shape = shapeOf(config, facts, refuse);
  const tensors = tensorsOf(source, shape, refuse);
  const tokenizer = weightsOnly ? [] : tokenizerPairs(await readTokenizer(source), shape.vocabSize, refuse);
  const name = `${basename(source.path)}.gguf`;
  const pairs = new Map<string, WrittenValue>([
    [FILE_TYPE_KEY, ['u32', FILE_TYPES[source.entries.get('model.embed_tokens.weight')!.type.float!]]],
    ...describe(shape, facts, basename(source.path)),
    ...tokenizer,
  ]);
  const order = new Map(tensors.map((tensor, place) => [tensor.name, place]));
  const envelope = new GgufEnvelope(headerOf(pairs), order, new Map(), notesOf(shape, facts));
  return new TensorView(source, { container: 'gguf', kind: 'file', file: name, envelope, tensors });
}

type Refuse = (message: string) => HqqError;

function familyOf(config: Readonly<Record<string, unknown>>, refuse: Refuse): Family {
  const given = Array.isArray(config.architectures) ? config.architectures[0] : undefined;
  const found = FAMILIES.find(({ className, modelType }) =>
    given === undefined ? modelType === config.model_type : className === given,
  );
  if (found !== undefined) return found;
  const names = FAMILIES.map(({ className }) => className).join(', ');
  const got = given ?? config.model_type;
  throw refuse(
    `Expected a model of one of the architectures ${names}, got ${typeof got === 'string' ? quote(got) : show(got)}`,
  );
}

function shapeOf(config: Readonly<Record<string, unknown>>, facts: Facts, refuse: Refuse): Shape {
  const family = familyOf(config, refuse);
  const activation = facts.get('hidden_act') ?? 'silu';
  if (activation !== 'silu' && activation !== 'swish') throw facts.wrong('hidden_act', 'silu');
  const heads = facts.count('num_attention_heads');
  const kvHeads = facts.count('num_key_value_heads', heads);
  const hidden = facts.count('hidden_size');
  const headDim = facts.count('head_dim', family.headDim ?? Math.floor(hidden / heads));
  if (heads % kvHeads !== 0) throw facts.wrong('num_key_value_heads', `a divisor of ${heads} heads`);
  if (headDim % 2 !== 0) throw facts.wrong('head_dim', 'even', headDim);
  const types = facts.get('layer_types');
  if (
    types !== undefined &&
    !(Array.isArray(types) && types.every((type) => type === 'full_attention')) &&
    family.modelType !== 'mistral'
  )
    throw facts.wrong('layer_types', 'full_attention of every layer');
  if (facts.flag('use_sliding_window', false)) throw facts.wrong('use_sliding_window', 'false');
  const given = config.sliding_window === undefined ? 4096 : facts.get('sliding_window');
  const window =
    family.modelType === 'mistral' && given !== undefined ? facts.count('sliding_window', 4096) : undefined;
  return {
    ...{ family, heads, kvHeads, headDim, window, layers: facts.count('num_hidden_layers') },
    ...{ vocabSize: facts.count('vocab_size'), tied: facts.flag('tie_word_embeddings', false) },
    ...ropeOf(facts),
  };
}

function ropeOf(facts: Facts): Pick<Shape, 'theta' | 'scaling'> {
  const parameters = facts.object('rope_parameters');
  const scaling = parameters ?? facts.object('rope_scaling');
  const theta =
    parameters?.get('rope_theta') === undefined ? facts.number('rope_theta', 10000) : parameters.number('rope_theta');
  for (const where of [facts, ...(scaling ? [scaling] : [])]) {
    if ((where.get('partial_rotary_factor') ?? 1) !== 1) throw where.wrong('partial_rotary_factor', '1');
  }
  const key = scaling?.get('rope_type') === undefined ? 'type' : 'rope_type';
  const type = scaling?.get(key) ?? 'default';
  if (type === 'default') return { theta, scaling: undefined };
  if (type !== 'llama3') throw scaling!.wrong(key, 'default or llama3');
  const [lowFactor, highFactor] = [scaling!.number('low_freq_factor'), scaling!.number('high_freq_factor')];
  if (highFactor <= lowFactor) throw scaling!.wrong('high_freq_factor', `more than low_freq_factor ${lowFactor}`);
  const trained = scaling!.count('original_max_position_embeddings', facts.count('max_position_embeddings', 2048));
  return { theta, scaling: { factor: scaling!.number('factor'), lowFactor, highFactor, trained } };
}

function notesOf({ window }: Shape, facts: Facts): readonly string[] {
  if (window === undefined || window >= facts.count('max_position_embeddings', 2048)) return [];
  const message = `The model sees ${window} positions back, which llama.cpp does not do for it: texts longer than these`;
  return [`${message} are computed otherwise there, so that the file says it is good for ${window}.`];
}

function describe(shape: Shape, facts: Facts, name: string): readonly (readonly [string, WrittenValue])[] {
  const { family, layers, heads, kvHeads, headDim, vocabSize, theta, window } = shape;
  const positions = facts.count('max_position_embeddings', 2048);
  const own = (key: string) => `${family.architecture}.${key}`;
  return [
    ['general.architecture', ['string', family.architecture]],
    ['general.type', ['string', 'model']],
    ['general.name', ['string', name]],
    [own('block_count'), ['u32', layers]],
    [own('context_length'), ['u32', Math.min(positions, window ?? positions)]],
    [own('embedding_length'), ['u32', facts.count('hidden_size')]],
    [own('feed_forward_length'), ['u32', facts.count('intermediate_size')]],
    [own('attention.head_count'), ['u32', heads]],
    [own('attention.head_count_kv'), ['u32', kvHeads]],
    [own('attention.layer_norm_rms_epsilon'), ['f32', facts.number('rms_norm_eps', 1e-6)]],
    [own('attention.key_length'), ['u32', headDim]],
    [own('attention.value_length'), ['u32', headDim]],
    [own('rope.freq_base'), ['f32', theta]],
    [own('rope.dimension_count'), ['u32', headDim]],
    [own('vocab_size'), ['u32', vocabSize]],
  ];
}

/** Tensors that must be there, by their names in Hugging Face, and their shapes; one by one, as a configuration may claim any number. */
function* wanted(
  { family, layers, heads, kvHeads, headDim, vocabSize, tied }: Shape,
  facts: Facts,
): Generator<readonly [name: string, shape: readonly number[]]> {
  const [hidden, inner] = [facts.count('hidden_size'), facts.count('intermediate_size')];
  const attentionBias = facts.flag('attention_bias', false);
  const mlpBias = facts.flag('mlp_bias', false);
  const qkvBias = family.qkvBias || attentionBias;
  yield ['model.embed_tokens.weight', [vocabSize, hidden]];
  for (let block = 0; block < layers; block++) {
    const norm = (module: string, size: number) => [`model.layers.${block}.${module}.weight`, [size]] as const;
    function* linear(module: string, outs: number, ins: number, bias: boolean) {
      yield [`model.layers.${block}.${module}.weight`, [outs, ins]] as const;
      if (bias) yield [`model.layers.${block}.${module}.bias`, [outs]] as const;
    }
    yield norm('input_layernorm', hidden);
    yield* linear('self_attn.q_proj', heads * headDim, hidden, qkvBias);
    yield* linear('self_attn.k_proj', kvHeads * headDim, hidden, qkvBias);
    yield* linear('self_attn.v_proj', kvHeads * headDim, hidden, qkvBias);
    yield* linear('self_attn.o_proj', hidden, heads * headDim, attentionBias && !family.qkvBias);
    if (family.headNorms) for (const one of ['q_norm', 'k_norm']) yield norm(`self_attn.${one}`, headDim);
    yield norm('post_attention_layernorm', hidden);
    yield* linear('mlp.gate_proj', inner, hidden, mlpBias);
    yield* linear('mlp.up_proj', inner, hidden, mlpBias);
    yield* linear('mlp.down_proj', hidden, inner, mlpBias);
  }
  yield ['model.norm.weight', [hidden]];
  if (!tied) yield ['lm_head.weight', [vocabSize, hidden]];
}

function tensorsOf(source: TensorSource, shape: Shape, refuse: Refuse): readonly Seen[] {
  const { config } = source.envelope;
  const facts = new Facts((name) => config![name], join(source.path, 'config.json'));
  const left = new Map([...source.entries].filter(([name]) => !IGNORED.test(name)));
  const tensors: Seen[] = [];
  for (const [name, expected] of wanted(shape, facts)) {
    const entry = left.get(name);
    if (entry === undefined) throw refuse(`The model has no tensor ${quote(name)}, which its config.json demands`);
    left.delete(name);
    if (entry.shape.length !== expected.length || expected.some((size, i) => size !== entry.shape[i])) {
      const got = entry.shape.join(' x ');
      throw refuse(`Expected ${quote(name)} to be ${expected.join(' x ')} after config.json, got ${got}`);
    }
    tensors.push(seenOf(entry, shape, refuse));
  }
  if (shape.tied) left.delete('lm_head.weight');
  const [unknown] = left.keys();
  if (unknown !== undefined)
    throw refuse(`The model has a tensor ${quote(unknown)}, which ${shape.family.className} of llama.cpp has not`);
  if (shape.scaling) {
    const factors = llama3Factors(shape.headDim, shape.theta, shape.scaling);
    const bytes = new Uint8Array(factors.buffer, factors.byteOffset, factors.byteLength);
    tensors.push({ name: 'rope_freqs.weight', type: storedType('F32'), shape: [factors.length], bytes });
  }
  return tensors.sort((a, b) => orderOf(a.name) - orderOf(b.name));
}

function seenOf(entry: TensorEntry, { family, headDim }: Shape, refuse: Refuse): Seen {
  const name = theirName(entry.name)!;
  const rows = family.permuted && turnedHeads(entry.name) !== undefined ? interleaved(headDim) : undefined;
  if (entry.shape.length === 1) return asList(name, entry, rows);
  if (entry.type.float === undefined)
    throw refuse(`Expected ${quote(entry.name)} to be of float32, float16 or bfloat16, got ${entry.type.name}`);
  return { name, type: entry.type, shape: entry.shape, of: entry, rows };
}
