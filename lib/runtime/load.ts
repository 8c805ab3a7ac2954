import { join } from 'node:path';
import { activeBackend } from '../backend/index.js';
import { readWhole, systemCode } from '../files/io.js';
import { parseJson } from '../files/json.js';
import type { FilePath } from '../files/path.js';
import { HqqError } from '../messages/errors.js';
import { refuseSurplus } from '../messages/surplus.js';
import { openFolderModel } from '../models/folder-model.js';
import type { Model } from '../models/model.js';
import { configIn } from './config/config-in.js';
import { type LanguageModelConfig, readIds, readModelConfig } from './config/model-config.js';
import { type LoadLanguageModelOptions, MAX_CONTEXT, resolveLoadOptions } from './load-options.js';
import { LanguageModel } from './model.js';
import { readChatTemplate } from './text/chat-template.js';
import { openChatTokenizer } from './text/tokenizer.js';
import { readAdapters } from './weights/adapters.js';
import { readWeights } from './weights/read.js';

/** Largest generation_config.json. Real ones have a few hundred bytes. */
const MAX_GENERATION_BYTES = 1 << 20;

/**
 * Loads a decoder-only language model (Llama, Mistral, Qwen2, Qwen3, Phi-3, SmolLM3, Granite, OLMo 2, Gemma 2 and 3, Mixtral, Qwen3-MoE)
 * from a Hugging Face folder, quantized by `hqq` or not, from a GGUF file of one of the first four, or one that is in this machine's
 * Hugging Face cache (`org/name`). Linear layers stay as they are on disk: packed codes are multiplied without being expanded, floats
 * become float32.
 *
 * @example
 * const model = await loadLanguageModel('Llama-3.2-1B-hqq4');
 * for await (const { text } of model.generate('The sea', { maxTokens: 100, temperature: 0.7, seed: 1 }))
 * process.stdout.write(text);
 * await model.close();
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`; `ERR_CHECKPOINT_CONTENT` for a model that this
 *   runtime does not compute.
 */
export async function loadLanguageModel(
  path: FilePath,
  options: LoadLanguageModelOptions = {},
): Promise<LanguageModel> {
  refuseSurplus(arguments.length, 2, 'loadLanguageModel(path, options)');
  return loadMerged(path, undefined, options);
}

/**
 * The same of a model that an adapter is merged into, where there is one.
 *
 * @param floatBytes What floats may take: of a model that has more of them, they become 8 bits.
 * @internal
 */
export async function loadMerged(
  path: FilePath,
  adapter: string | undefined,
  options: LoadLanguageModelOptions,
  floatBytes?: number,
): Promise<LanguageModel> {
  const { activations, head, threads, maxContext, maxBatch, prefixBytes, cacheDtype, adapters, signal } =
    resolveLoadOptions(options);
  activeBackend(); // before gigabytes are read: where there is none, that is an error
  const model = await openFolderModel(path, adapter);
  try {
    const config = configOf(model);
    const { path: folder } = model; // not as it was given, which may be an id
    const endIds = await readEndIds(folder, config);
    const adapted = await readAdapters(model, config, adapters, signal); // before gigabytes are read
    const weights = await readWeights(model, config, { activations, head, floatBytes, threads, signal });
    const context = maxContext ?? naturalContext(config);
    return new LanguageModel({
      config,
      weights,
      adapters: adapted,
      endIds,
      threads,
      maxContext: context,
      maxBatch,
      prefixBytes,
      cacheDtype,
      tokenizer: () => openChatTokenizer(folder),
      chatTemplate: () => readChatTemplate(folder),
    });
  } finally {
    await model.close();
  }
}

/** Most positions of a text of a model that is not loaded: its weights are not read. @throws as `loadLanguageModel` */
export async function contextOf(path: FilePath): Promise<number> {
  const model = await openFolderModel(path);
  try {
    return naturalContext(configOf(model));
  } finally {
    await model.close();
  }
}

/** What a model's config.json says. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` */
export function configOf(model: Model): LanguageModelConfig {
  return readModelConfig(configIn(model), join(model.path, 'config.json'));
}

/** Positions that a model is good for. Files with `llama3` or `longrope`, and those of Gemma 3, count the stretching in already, those with `yarn` may. */
export function naturalContext({ architecture, maxPositions, ropes }: LanguageModelConfig): number {
  const { scaling } = ropes[0]!;
  const stretches = 'factor' in scaling && scaling.type !== 'llama3' && architecture !== 'Gemma3ForCausalLM';
  const stretched = stretches ? Math.floor(scaling.trained * scaling.factor) : 0;
  return Math.min(MAX_CONTEXT, Math.max(maxPositions, stretched));
}

/** generation_config.json, if there is one, knows end tokens that config.json does not. */
async function readEndIds(path: string, config: LanguageModelConfig): Promise<readonly number[]> {
  const file = join(path, 'generation_config.json');
  try {
    const bytes = await readWhole(file, MAX_GENERATION_BYTES);
    const value = parseJson(bytes, { file, allowNonFinite: true }) as { eos_token_id?: unknown } | null;
    const ids = readIds(value?.eos_token_id, file);
    return ids.length > 0 ? ids : config.endIds;
  } catch (error) {
    if (error instanceof HqqError && /^(ENOENT|ENOTDIR)$/.test(systemCode(error.cause) ?? '')) return config.endIds;
    throw error;
  }
}
