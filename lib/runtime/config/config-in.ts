import { HqqError } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import type { Model } from '../../models/model.js';

/** What is in a model's config.json. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a model that has none */
export function configIn({ config, isGraph, path }: Model): Readonly<Record<string, unknown>> {
  if (isGraph) {
    const message = `Expected a model folder or a GGUF file, got ${plain(path)}, an ONNX graph, which onnxruntime and transformers.js run.`;
    throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
  }
  if (config !== undefined) return config;
  const message = `Expected a model folder with config.json, got ${plain(path)}, which has none.`;
  throw new HqqError('ERR_CHECKPOINT_CONTENT', message);
}
