import type { Description } from '../description.js';
import type { Fields } from '../fields.js';

/** What is read of config.json before what is peculiar to an architecture. */
export interface Sizes {
  readonly hiddenSize: number;
  readonly layers: number;
  readonly headDim: number;
  readonly maxPositions: number;
}

/** An architecture that runs. */
export interface Architecture {
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** What config.json means where it does not say: as the class of transformers has it. */
  readonly defaults?: Readonly<Record<string, unknown>>;
  /** Fields of `FEATURES` that it reads. */
  readonly features?: readonly Feature[];
  /** The field that names the activation. @default 'hidden_act' */
  readonly activation?: string;
  /** What differs from Llama. */
  describe?(fields: Fields, sizes: Sizes): Partial<Description>;
}

/**
 * Fields by which some architectures compute something that others do not: what they say where nothing is meant. An architecture that
 * does not read one refuses a file that means something by it, since transformers would leave it out or fail.
 */
export const FEATURES = {
  attention_multiplier: [],
  attn_logit_softcapping: [],
  clip_qkv: [],
  decoder_sparse_step: [1],
  embedding_multiplier: [1],
  final_logit_softcapping: [],
  logits_scaling: [1],
  mlp_only_layers: [],
  no_rope_layers: [],
  num_experts: [0],
  num_local_experts: [0],
  query_pre_attn_scalar: [],
  residual_multiplier: [1],
  rope_local_base_freq: [],
  use_bidirectional_attention: [false],
} as const satisfies Readonly<Record<string, readonly unknown[]>>;

/** One of these fields. */
export type Feature = keyof typeof FEATURES;

/** @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a field that says something which is not computed */
export function refuseFeatures(fields: Fields, features: readonly Feature[]): void {
  for (const [name, neutral] of Object.entries(FEATURES)) {
    const value = fields.get(name);
    if (value === undefined || features.includes(name as Feature)) continue;
    if (Array.isArray(value) && value.length === 0) continue;
    if ((neutral as readonly unknown[]).includes(value)) continue;
    throw fields.unsupported(name, neutral.length > 0 ? `${neutral[0]}, or none` : 'none');
  }
}
