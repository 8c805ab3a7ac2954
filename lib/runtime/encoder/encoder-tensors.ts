import { HqqError } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import type { Model } from '../../models/model.js';
import type { LinearSpec } from '../weights/tensors.js';
import type { EncoderConfig } from './encoder-config.js';

// What tensors an encoder has, by its config. Others, such as a pooler's and a head's, come after what is computed here.

/** Linear layers of a block: what checkpoints call their modules. */
export const ENCODER_LINEARS = {
  q: 'attention.self.query',
  k: 'attention.self.key',
  v: 'attention.self.value',
  o: 'attention.output.dense',
  up: 'intermediate.dense',
  down: 'output.dense',
} as const;

/** A norm: its weight and its bias are called so. */
export interface NormSpec {
  readonly module: string;
}

/** Tables whose rows are added to what a token is. */
export const TABLES = ['word_embeddings', 'position_embeddings', 'token_type_embeddings'] as const;

/** Names of tensors, of a model with whatever prefix. */
export class EncoderNames {
  readonly #prefix: string;
  readonly #config: EncoderConfig;

  constructor(config: EncoderConfig, prefix: string) {
    this.#config = config;
    this.#prefix = prefix;
  }

  table(name: (typeof TABLES)[number]): string {
    return `${this.#prefix}embeddings.${name}.weight`;
  }

  get firstNorm(): string {
    return `${this.#prefix}embeddings.LayerNorm`;
  }

  block(index: number): {
    readonly linears: { readonly [K in keyof typeof ENCODER_LINEARS]: LinearSpec };
    readonly attentionNorm: string;
    readonly mlpNorm: string;
  } {
    const { hiddenSize, intermediateSize } = this.#config;
    const at = `${this.#prefix}encoder.layer.${index}`;
    const linear = (name: keyof typeof ENCODER_LINEARS, outs = hiddenSize, ins = hiddenSize): LinearSpec => {
      return { module: `${at}.${ENCODER_LINEARS[name]}`, shape: [outs, ins], bias: true };
    };
    return {
      linears: {
        ...{ q: linear('q'), k: linear('k'), v: linear('v'), o: linear('o') },
        ...{ up: linear('up', intermediateSize, hiddenSize), down: linear('down', hiddenSize, intermediateSize) },
      },
      attentionNorm: `${at}.attention.output.LayerNorm`,
      mlpNorm: `${at}.output.LayerNorm`,
    };
  }
}

/**
 * The names of a model's tensors, each held against the config before a weight is read.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT`
 */
export function encoderNames(model: Model, config: EncoderConfig): EncoderNames {
  const bare = new EncoderNames(config, '');
  const names = model.has(bare.table('word_embeddings')) ? bare : new EncoderNames(config, config.prefix);
  const { hiddenSize, vocabSize, positions, types } = config;
  const where = plain(model.path);
  const check = (name: string, expected: readonly number[]) => {
    if (!model.has(name)) throw new HqqError('ERR_CHECKPOINT_CONTENT', `${where} has no tensor ${name}.`);
    const got = model.shape(name);
    if (got.length === expected.length && got.every((size, i) => size === expected[i])) return;
    const message = `Expected ${name} to be ${expected.join(' x ')} after config.json, got ${got.join(' x ')}`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', `${where}: ${message}.`);
  };
  const checkNorm = (module: string) => {
    for (const part of ['weight', 'bias']) check(`${module}.${part}`, [hiddenSize]);
  };
  const rows = { word_embeddings: vocabSize, position_embeddings: positions, token_type_embeddings: types };
  for (const table of TABLES) check(names.table(table), [rows[table], hiddenSize]);
  checkNorm(names.firstNorm);
  for (let index = 0; index < config.layers; index++) {
    const { linears, attentionNorm, mlpNorm } = names.block(index);
    for (const { module, shape } of Object.values(linears)) {
      check(`${module}.weight`, shape);
      check(`${module}.bias`, [shape[0]]);
    }
    for (const norm of [attentionNorm, mlpNorm]) checkNorm(norm);
  }
  return names;
}
