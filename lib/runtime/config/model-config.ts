import { HqqError, show } from '../../messages/errors.js';
import { plain, quote } from '../../messages/text.js';
import { type Architecture, refuseFeatures } from './architectures/architecture.js';
import { ARCHITECTURES, type ArchitectureName } from './architectures/list.js';
import { type Activation, type Description, PRE_NORMS } from './description.js';
import { configError, Fields } from './fields.js';
import { readRope } from './rope-config.js';
import { readWindows } from './windows.js';

/** Most layers; real models have some hundred. Lists of that length are made before a weight is looked for. */
const MAX_LAYERS = 4096;

/** What a decoder-only model is, from its config.json. */
export interface LanguageModelConfig extends Description {
  /** As `architectures` names it. */
  readonly architecture: ArchitectureName;
  /** Numbers per position between blocks. */
  readonly hiddenSize: number;
  /** Numbers per position inside the MLP of blocks without experts. */
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
  const name = readArchitecture(config, file);
  const architecture: Architecture = ARCHITECTURES[name];
  const fields = new Fields(withDefaults(config, architecture.defaults ?? {}), file);
  checkQuantization(config, file);
  refuseFeatures(fields, architecture.features ?? []);
  const hiddenSize = fields.count('hidden_size');
  const heads = fields.count('num_attention_heads');
  const kvHeads = fields.count('num_key_value_heads', heads);
  const headDim = fields.count('head_dim', hiddenSize / heads);
  if (heads % kvHeads !== 0) throw fields.wrong('num_key_value_heads', `to divide ${heads} heads`);
  if (headDim % 2 !== 0) throw fields.wrong('head_dim', 'to be even');
  const layers = fields.count('num_hidden_layers', undefined, 1, MAX_LAYERS);
  const maxPositions = fields.count('max_position_embeddings', 2048);
  const attentionBias = fields.flag('attention_bias', false);
  const own = architecture.describe?.(fields, { hiddenSize, layers, headDim, maxPositions }) ?? {};
  const read: LanguageModelConfig = {
    architecture: name,
    hiddenSize,
    intermediateSize: fields.count('intermediate_size'),
    layers,
    heads,
    kvHeads,
    headDim,
    vocabSize: fields.count('vocab_size'),
    maxPositions,
    normEpsilon: fields.number('rms_norm_eps', 1e-6),
    tied: fields.flag('tie_word_embeddings', false),
    endIds: readIds(config.eos_token_id, file),
    beginId: readIds(config.bos_token_id, file, 'bos_token_id')[0],
    windows: own.windows ?? readWindows(fields, layers, () => 0),
    ropes: own.ropes ?? [readRope(fields, { headDim, maxPositions })],
    ropeOf: Array<number>(layers).fill(0),
    outputBias: attentionBias,
    mlpBias: fields.flag('mlp_bias', false),
    fused: false,
    headNorms: 'none',
    norms: PRE_NORMS,
    normOffset: 0,
    activation: readActivation(fields, architecture.activation ?? 'hidden_act'),
    multipliers: { embedding: 1, attention: 1 / Math.sqrt(headDim), residual: 1, logits: 1 },
    softCaps: { attention: 0, logits: 0 },
    experts: undefined,
    ...own,
    qkvBias: own.qkvBias === true || attentionBias,
  };
  return Object.freeze(read);
}

/** What the file says comes before what its architecture has, also where it says `null`. */
function withDefaults(
  config: Readonly<Record<string, unknown>>,
  defaults: Readonly<Record<string, unknown>>,
): Readonly<Record<string, unknown>> {
  const missing = Object.entries(defaults).filter(([name]) => config[name] === undefined);
  return { ...config, ...Object.fromEntries(missing) };
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

/** @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for weights that another tool has quantized */
function checkQuantization(
  { quantization_config: quantization }: Readonly<Record<string, unknown>>,
  file: string,
): void {
  if (quantization === undefined || quantization === null) return;
  const method = (quantization as { quant_method?: unknown }).quant_method;
  if (!METHODS.includes(method))
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `${plain(file)}: Expected weights in floating point or of quant_method ${METHODS.join(', ')}, got ${show(
        method,
      )}.`,
    );
}

/** Activations, as transformers calls them. */
const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_new: 'gelu_tanh',
};

function readActivation(fields: Fields, name: string): Activation {
  const given = fields.get(name) ?? 'silu';
  const found = typeof given === 'string' && Object.hasOwn(ACTIVATIONS, given) ? ACTIVATIONS[given] : undefined;
  if (found === undefined) throw fields.unsupported(name, Object.keys(ACTIVATIONS).join(', '));
  return found;
}
