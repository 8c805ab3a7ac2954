import { basename, dirname } from 'node:path';
import { quote } from '../../messages/text.js';
import type { TensorEntry } from '../container.js';

// Adapters: small matrices that are added to those of a model, which is elsewhere.

/** What peft describes an adapter with (utils/constants.py). */
export const ADAPTER_CONFIG = 'adapter_config.json';

/** Files that hold one: peft's (utils/constants.py), and those of mlx-lm, checkpoints among them (tuner/trainer.py). */
const ADAPTER_FILE = /^(adapter_model|(\d+_)?adapters)\.(safetensors|bin)$/;

/** Parts of the names of its tensors: in peft (`adapter_layer_names` in tuners/<method>/layer.py), kohya's scripts and diffusers, mlx-lm. */
const ADAPTER_PART =
  /(^|[._])(lora_([AB]|[ab]|up|down|mid|E|embedding_[AB]|magnitude_vector)|hada_(w[12]_[ab]|t[12])|lokr_(w[12](_[ab])?|t2)|ia3_l|oft_R|boft_[Rs]|vera_(lambda_[bd]|[AB])|randlora_(lambda|gamma|[AB])|fourierft_spectrum|hra_u|miss_block|vblora_(logits_[AB]|vector_bank)|c3a_kernel|shira_weight|road_(theta|alpha)|waveft_spectrum|bone_block|delora_(A|B|lambda)|gralora_[AB]|adaption_(prompt|gate)|trainable_tokens_delta|prompt_embeddings)([._]|$)/;
/** Of these, what no model has of its own. Some have low-rank layers called `lora_A`: only with a `lora_B` are they an adapter's. */
const SURELY_ADDED =
  /(^|[._])(hada_|lokr_|ia3_l|oft_R|boft_|vera_lambda_|randlora_|fourierft_|vblora_|c3a_kernel|shira_weight|road_theta|waveft_|bone_block|delora_|gralora_|lora_magnitude_vector)/;
/** Numbers beside them. */
const ADAPTER_NUMBER = /[._](alpha|dora_scale)$/;
/** What peft puts in front of the names of modules that it wraps, also of those that are trained whole and saved along. */
const WRAPPED = 'base_model.';

/**
 * What peft calls the tensors of a model that it has wrapped (tuners/tuners_utils.py, utils/other.py): `q_proj.base_layer.weight` of a
 * layer beside what is added to it, and `lm_head.modules_to_save.default.weight` beside `original_module`.
 */
const WRAPPED_PART = /\.(base_layer|modules_to_save\.[^.]+|original_module)\.(weight|bias)$/;

/** The name of a tensor that shows that a model has adapters within it, which are not merged; undefined where it has none. */
export function unmergedTensor(entries: ReadonlyMap<string, TensorEntry>): string | undefined {
  for (const name of entries.keys()) {
    if (WRAPPED_PART.test(name)) return name;
    if (!ADAPTER_PART.test(name)) continue;
    const pair = name.replace(/(?<=[._])lora_(embedding_)?A(?=[._]|$)/, 'lora_$1B');
    if (SURELY_ADDED.test(name) || (pair !== name && entries.has(pair))) return name;
  }
  return undefined;
}

/** How adapters within a model become part of its layers. */
export const UNMERGED_ADVICE =
  'Load it with peft as it was made, merge the adapter (merge_and_unload), save that (save_pretrained), and quantize it.';

/** Whether a file is an adapter's by its name. */
export function isAdapterFile(path: string): boolean {
  return ADAPTER_FILE.test(basename(path));
}

/** The name of a tensor that shows that all of a model's tensors are those of an adapter; undefined where they are not. */
export function adapterTensor(entries: ReadonlyMap<string, TensorEntry>): string | undefined {
  let example: string | undefined;
  for (const name of entries.keys()) {
    if (ADAPTER_PART.test(name)) example ??= name;
    else if (!name.startsWith(WRAPPED) && !ADAPTER_NUMBER.test(name)) return undefined;
  }
  return example;
}

/** How an adapter becomes part of its model. `path`: its folder, or its file; `sign`: a file or a tensor of it. */
export function mergeAdvice(path: string, sign: string): string {
  if (/\.lora_[ab]$|adapters\.safetensors$/.test(sign)) {
    return 'Merge it into its model (mlx_lm.fuse), and quantize that.';
  }
  const folder = path.endsWith('.safetensors') ? dirname(path) : path;
  const call = `AutoPeftModelForCausalLM.from_pretrained(${quote(folder)}).merge_and_unload().save_pretrained("merged")`;
  return `Merge it into its model, with peft in Python: ${call}, and quantize that.`;
}
