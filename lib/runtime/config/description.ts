import type { RopeConfig } from './rope-config.js';

// What blocks of a model compute, as data: architectures (architectures/) differ in nothing else.

/** Norms of a block by what checkpoints call them; undefined: there is none. */
export interface BlockNorms {
  /** Of what goes into attention. */
  readonly beforeAttention?: string;
  /** Of what comes out of attention, before it is added. */
  readonly afterAttention?: string;
  /** Of what goes into the MLP. */
  readonly beforeMlp?: string;
  /** Of what comes out of the MLP, before it is added. */
  readonly afterMlp?: string;
}

/** Numbers that what flows through the model is multiplied by. */
export interface Multipliers {
  /** Embeddings of tokens. */
  readonly embedding: number;
  /** Products of queries and keys: as a rule 1 / sqrt(headDim). */
  readonly attention: number;
  /** What attention and the MLP add to what they were given. */
  readonly residual: number;
  /** Logits, before their soft cap. */
  readonly logits: number;
}

/** Bounds that numbers are bent to stay within, `cap * tanh(x / cap)`; 0: none. */
export interface SoftCaps {
  /** Of scores of attention. */
  readonly attention: number;
  /** Of logits. */
  readonly logits: number;
}

/** Blocks whose MLP is several, of which each position goes through some. */
export interface ExpertsConfig {
  /** How many there are. */
  readonly count: number;
  /** How many each position goes through. */
  readonly chosen: number;
  /** Numbers per position inside one. */
  readonly width: number;
  /** Whether the probabilities of those that were chosen are made to sum to 1. */
  readonly normalized: boolean;
  /** Block by block, whether it has experts, or one MLP like others. */
  readonly blocks: readonly boolean[];
  /** What checkpoints call them. */
  readonly names: ExpertNames;
}

/** What checkpoints call an MLP of experts and its parts. */
export interface ExpertNames {
  /** The module that holds the experts, and what chooses among them. */
  readonly module: string;
  /** An expert's layer of gates. */
  readonly gate: string;
  /** Its layer of what gates are multiplied with. */
  readonly up: string;
  /** Its layer that leads back to the width of the model. */
  readonly down: string;
}

/** What a gate goes through: `silu`, or GELU by tanh. */
export type Activation = 'silu' | 'gelu_tanh';

/** What the blocks of a model compute, and what is around them. */
export interface Description {
  /** Positions that each layer sees, the last among them; 0: all. */
  readonly windows: readonly number[];
  /** Rotary embeddings. The first is that of layers that see all positions. */
  readonly ropes: readonly RopeConfig[];
  /** Which of them each layer has; undefined: none. */
  readonly ropeOf: readonly (number | undefined)[];
  /** Whether q, k and v have a bias. */
  readonly qkvBias: boolean;
  /** Whether o has a bias. */
  readonly outputBias: boolean;
  /** Whether gate, up and down have a bias. */
  readonly mlpBias: boolean;
  /** Whether q, k and v are one linear layer, and gate and up are. */
  readonly fused: boolean;
  /** Norms of queries and of keys before they are turned: of `each` head by itself, or of all heads `together`. */
  readonly headNorms: 'none' | 'each' | 'together';
  /** Norms of a block. */
  readonly norms: BlockNorms;
  /** What is added to the weights of norms. */
  readonly normOffset: number;
  /** What gates go through. */
  readonly activation: Activation;
  /** Numbers that what flows through the model is multiplied by. */
  readonly multipliers: Multipliers;
  /** Bounds of scores and of logits. */
  readonly softCaps: SoftCaps;
  /** MLPs that are several; undefined: no block has such. */
  readonly experts: ExpertsConfig | undefined;
}

/** Norms of Llama and of those like it. */
export const PRE_NORMS: BlockNorms = {
  beforeAttention: 'input_layernorm',
  beforeMlp: 'post_attention_layernorm',
};
