import { HqqError, show } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import { Fields } from '../config/fields.js';

/** What an encoder has between the two layers of its MLP: operations. */
type Activation = 'gelu' | 'geluTanh' | 'relu';

/** Families that run, as `model_type` in config.json names them, and what is peculiar to each. */
const FAMILIES = {
  bert: { prefix: 'bert.', firstPosition: () => 0 },
  // Positions begin after that of padding.
  roberta: { prefix: 'roberta.', firstPosition: (fields: Fields) => fields.count('pad_token_id', 1, 0) + 1 },
  'xlm-roberta': { prefix: 'roberta.', firstPosition: (fields: Fields) => fields.count('pad_token_id', 1, 0) + 1 },
} as const;

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  gelu: 'gelu',
  gelu_new: 'geluTanh',
  gelu_pytorch_tanh: 'geluTanh',
  relu: 'relu',
};

/** Most layers: as of language models. */
const MAX_LAYERS = 4096;

/** What an encoder of the BERT family is, from its config.json. */
export interface EncoderConfig {
  readonly family: keyof typeof FAMILIES;
  /** What names of tensors begin with in models that have a head on top; those of the encoder alone begin with nothing. */
  readonly prefix: string;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  /** Rows of the table of positions. */
  readonly positions: number;
  /** The row of a text's first token. */
  readonly firstPosition: number;
  /** Most tokens of a text. */
  readonly maxPositions: number;
  /** Rows of the table of token types, of which all tokens have the first. */
  readonly types: number;
  readonly normEpsilon: number;
  readonly activation: Activation;
}

/** Whether config.json is that of an encoder, of which `readEncoderConfig` then says whether it runs. */
export function isEncoder(config: Readonly<Record<string, unknown>> | undefined): boolean {
  return typeof config?.model_type === 'string' && Object.hasOwn(FAMILIES, config.model_type);
}

/**
 * Reads config.json. What is not computed is an error, never a result that is silently wrong.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for another family or a feature that is not supported, `ERR_CHECKPOINT_FORMAT` for a value
 *   that cannot be
 */
export function readEncoderConfig(config: Readonly<Record<string, unknown>>, file = 'config.json'): EncoderConfig {
  if (!isEncoder(config)) {
    const expected = `Expected an encoder, of model_type ${Object.keys(FAMILIES).join(', ')}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${plain(file)}: ${expected}, got ${plain(show(config.model_type))}.`);
  }
  const family = config.model_type as keyof typeof FAMILIES;
  const fields = new Fields(config, file);
  const { prefix, firstPosition } = FAMILIES[family];
  if ((fields.get('position_embedding_type') ?? 'absolute') !== 'absolute')
    throw fields.unsupported('position_embedding_type', 'absolute');
  for (const name of ['is_decoder', 'add_cross_attention'])
    if (fields.flag(name, false)) throw fields.unsupported(name, 'false');
  const activation = ACTIVATIONS[String(fields.get('hidden_act') ?? 'gelu')];
  if (activation === undefined) throw fields.unsupported('hidden_act', Object.keys(ACTIVATIONS).join(', '));
  const [hiddenSize, heads] = [fields.count('hidden_size', 768), fields.count('num_attention_heads', 12)];
  if (hiddenSize % heads !== 0) throw fields.wrong('num_attention_heads', `to divide hidden_size ${hiddenSize}`);
  const [positions, first] = [fields.count('max_position_embeddings', 512), firstPosition(fields)];
  if (positions <= first) throw fields.wrong('max_position_embeddings', `to be more than ${first}`);
  return Object.freeze({
    ...{ family, prefix, hiddenSize, heads, headDim: hiddenSize / heads, activation },
    ...{ positions, firstPosition: first, maxPositions: positions - first },
    intermediateSize: fields.count('intermediate_size', 3072),
    layers: fields.count('num_hidden_layers', 12, 1, MAX_LAYERS),
    vocabSize: fields.count('vocab_size', 30522),
    types: fields.count('type_vocab_size', 2),
    normEpsilon: fields.number('layer_norm_eps', 1e-12),
  });
}
