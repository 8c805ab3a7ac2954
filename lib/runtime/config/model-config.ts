import { HqqError, show } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import { configError, Fields } from './fields.js';
import { type RopeConfig, readRope } from './rope-config.js';

/** Architectures that run, as `architectures` in config.json names them, and what is peculiar to each. */
const ARCHITECTURES: Readonly<Record<ArchitectureName, Architecture>> = {
  LlamaForCausalLM: { modelType: 'llama', window: () => 0 },
  MistralForCausalLM: { modelType: 'mistral', window: slidingWindow },
  Qwen2ForCausalLM: { modelType: 'qwen2', qkvBias: true, window: lateWindow },
  // What a file that does not say head_dim has, whatever the hidden size.
  Qwen3ForCausalLM: { modelType: 'qwen3', headNorms: true, headDim: 128, window: lateWindow },
};

/** An architecture that runs, as config.json calls it. */
export type ArchitectureName = 'LlamaForCausalLM' | 'MistralForCausalLM' | 'Qwen2ForCausalLM' | 'Qwen3ForCausalLM';

interface Architecture {
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** q, k and v have a bias, whatever config.json says. */
  readonly qkvBias?: boolean;
  /** Each head of queries and of keys goes through a norm before it is turned. */
  readonly headNorms?: boolean;
  /** Numbers per head where config.json says none; absent: what the hidden size leaves for each. */
  readonly headDim?: number;
  /** Positions that a layer sees; 0: all. */
  window(fields: Fields, layer: number): number;
}

/** Most layers; real models have some hundred. Lists of that length are made before a weight is looked for. */
const MAX_LAYERS = 4096;

/** What a decoder-only model of the Llama family is, from its config.json. */
export interface LanguageModelConfig {
  /** As `architectures` names it. */
  readonly architecture: ArchitectureName;
  /** Numbers per position between blocks. */
  readonly hiddenSize: number;
  /** Numbers per position inside the MLP. */
  readonly intermediateSize: number;
  /** Decoder blocks. */
  readonly layers: number;
  /** Heads of queries. */
  readonly heads: number;
  /** Heads of keys and values; divides `heads`. */
  readonly kvHeads: number;
  /** Numbers per head; even. */
  readonly headDim: number;
  /** Tokens that there are. */
  readonly vocabSize: number;
  /** Positions that it was trained for. */
  readonly maxPositions: number;
  /** What RMSNorm adds to the mean square. */
  readonly normEpsilon: number;
  /** Rotary embedding. */
  readonly rope: RopeConfig;
  /** Positions that each layer sees, the last among them; 0: all. */
  readonly windows: readonly number[];
  /** Whether q, k and v have a bias. */
  readonly qkvBias: boolean;
  /** Whether o has a bias. */
  readonly outputBias: boolean;
  /** Whether each head of queries and of keys goes through a norm before it is turned. */
  readonly headNorms: boolean;
  /** Whether gate, up and down have a bias. */
  readonly mlpBias: boolean;
  /** The head is the embedding. */
  readonly tied: boolean;
  /** Tokens that end a text. */
  readonly endIds: readonly number[];
  /** Token that begins a text; undefined: config.json names none. */
  readonly beginId: number | undefined;
}

/**
 * Reads config.json. What this runtime does not compute is an error, never a result that is silently wrong.
 *
 * @param file Its path, as messages show it.
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for an architecture or a feature that is not supported,
 *   `ERR_CHECKPOINT_FORMAT` for a value that cannot be.
 */
export function readModelConfig(config: Readonly<Record<string, unknown>>, file = 'config.json'): LanguageModelConfig {
  const fields = new Fields(config, file);
  const architecture = readArchitecture(config, file);
  const { qkvBias = false, headNorms = false, window, headDim: own } = ARCHITECTURES[architecture];
  checkSupported(fields, config, file);
  const hiddenSize = fields.count('hidden_size');
  const heads = fields.count('num_attention_heads');
  const kvHeads = fields.count('num_key_value_heads', heads);
  const headDim = fields.count('head_dim', own ?? hiddenSize / heads);
  if (heads % kvHeads !== 0) throw fields.wrong('num_key_value_heads', `to divide ${heads} heads`);
  if (headDim % 2 !== 0) throw fields.wrong('head_dim', 'to be even');
  const layers = fields.count('num_hidden_layers', undefined, 1, MAX_LAYERS);
  const maxPositions = fields.count('max_position_embeddings', 2048);
  const attentionBias = fields.flag('attention_bias', false);
  return Object.freeze({
    architecture,
    hiddenSize,
    intermediateSize: fields.count('intermediate_size'),
    layers,
    heads,
    kvHeads,
    headDim,
    vocabSize: fields.count('vocab_size'),
    maxPositions,
    normEpsilon: fields.number('rms_norm_eps', 1e-6),
    rope: readRope(fields, headDim, maxPositions),
    windows: readWindows(fields, layers, window),
    qkvBias: qkvBias || attentionBias,
    outputBias: attentionBias,
    headNorms,
    mlpBias: fields.flag('mlp_bias', false),
    tied: fields.flag('tie_word_embeddings', false),
    endIds: readIds(config.eos_token_id, file),
    beginId: readIds(config.bos_token_id, file, 'bos_token_id')[0],
  });
}

/** `eos_token_id` of config.json or generation_config.json: one id, several, or none. */
export function readIds(value: unknown, file: string, name = 'eos_token_id'): readonly number[] {
  const ids = value === undefined || value === null ? [] : Array.isArray(value) ? value : [value];
  const bad = ids.find((id) => !Number.isSafeInteger(id) || id < 0);
  if (bad !== undefined) throw configError(file, `Expected ${name} to be token ids, got ${show(bad)}.`);
  return ids as number[];
}

function readArchitecture(config: Readonly<Record<string, unknown>>, file: string): ArchitectureName {
  const names = Object.keys(ARCHITECTURES) as ArchitectureName[];
  const given = Array.isArray(config.architectures) ? config.architectures[0] : undefined;
  const found = names.find((name) =>
    given === undefined ? ARCHITECTURES[name].modelType === config.model_type : name === given,
  );
  if (found) return found;
  const shown = given ?? config.model_type;
  const got = typeof shown === 'string' ? quote(shown) : show(shown);
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${plain(file)}: Expected a model of one of the architectures ${names.join(', ')}, got ${got}.`,
  );
}

/** What layers may be quantized with, as config.json calls it. Which of them are, tensors tell. */
const METHODS: readonly unknown[] = ['hqq', 'compressed-tensors', 'awq', 'gptq', 'auto-round', 'torchao'];

/** Features that other models of these architectures have. */
function checkSupported(fields: Fields, config: Readonly<Record<string, unknown>>, file: string): void {
  const activation = config.hidden_act ?? 'silu';
  if (activation !== 'silu' && activation !== 'swish') throw fields.unsupported('hidden_act', 'silu');
  const quantization = config.quantization_config;
  if (quantization === undefined || quantization === null) return;
  const method = (quantization as { quant_method?: unknown }).quant_method;
  if (!METHODS.includes(method))
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `${plain(file)}: Expected weights in floating point or of quant_method ${METHODS.join(', ')}, got ${show(method)}.`,
    );
}

/** `layer_types` says it layer by layer; older files leave it to the architecture. */
function readWindows(
  fields: Fields,
  layers: number,
  window: (fields: Fields, layer: number) => number,
): readonly number[] {
  const types = fields.get('layer_types');
  if (types === undefined) return Array.from({ length: layers }, (_, layer) => window(fields, layer));
  if (!Array.isArray(types) || types.length !== layers) throw fields.wrong('layer_types', `to have ${layers} entries`);
  return types.map((type) => {
    if (type === 'full_attention') return 0;
    if (type === 'sliding_attention') return fields.count('sliding_window');
    throw fields.unsupported('layer_types', 'full_attention and sliding_attention');
  });
}

/** Layers below max_window_layers see everything, and without use_sliding_window all do. */
function lateWindow(fields: Fields, layer: number): number {
  const late = fields.flag('use_sliding_window', false) && layer >= fields.count('max_window_layers', 28, 0);
  return late ? slidingWindow(fields) : 0;
}

/** `null` is none; a file that does not say has that of transformers. */
function slidingWindow(fields: Fields): number {
  return fields.isNull('sliding_window') ? 0 : fields.count('sliding_window', 4096);
}
