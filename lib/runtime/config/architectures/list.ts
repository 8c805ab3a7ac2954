import type { Architecture } from './architecture.js';
import { GEMMA2 } from './gemma2.js';
import { GEMMA3 } from './gemma3.js';
import { GRANITE } from './granite.js';
import { LLAMA } from './llama.js';
import { MISTRAL } from './mistral.js';
import { MIXTRAL } from './mixtral.js';
import { OLMO2 } from './olmo2.js';
import { PHI3 } from './phi3.js';
import { QWEN2 } from './qwen2.js';
import { QWEN3 } from './qwen3.js';
import { QWEN3_MOE } from './qwen3-moe.js';
import { SMOLLM3 } from './smollm3.js';

/** An architecture that runs, as `architectures` in config.json calls it. */
export type ArchitectureName =
  | 'LlamaForCausalLM'
  | 'MistralForCausalLM'
  | 'Qwen2ForCausalLM'
  | 'Qwen3ForCausalLM'
  | 'Phi3ForCausalLM'
  | 'SmolLM3ForCausalLM'
  | 'GraniteForCausalLM'
  | 'Olmo2ForCausalLM'
  | 'Gemma2ForCausalLM'
  | 'Gemma3ForCausalLM'
  | 'MixtralForCausalLM'
  | 'Qwen3MoeForCausalLM';

/** Architectures that run. */
export const ARCHITECTURES: Readonly<Record<ArchitectureName, Architecture>> = {
  LlamaForCausalLM: LLAMA,
  MistralForCausalLM: MISTRAL,
  Qwen2ForCausalLM: QWEN2,
  Qwen3ForCausalLM: QWEN3,
  Phi3ForCausalLM: PHI3,
  SmolLM3ForCausalLM: SMOLLM3,
  GraniteForCausalLM: GRANITE,
  Olmo2ForCausalLM: OLMO2,
  Gemma2ForCausalLM: GEMMA2,
  Gemma3ForCausalLM: GEMMA3,
  MixtralForCausalLM: MIXTRAL,
  Qwen3MoeForCausalLM: QWEN3_MOE,
};
