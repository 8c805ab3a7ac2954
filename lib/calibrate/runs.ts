import type { TensorSource } from '../containers/container.js';
import { HqqError } from '../messages/errors.js';
import { readModelConfig } from '../runtime/config/model-config.js';
import { Encoder } from '../runtime/encoder/encoder.js';
import { isEncoder } from '../runtime/encoder/encoder-config.js';
import { openBlockSource } from '../runtime/source/block-source.js';

/** Why hqq/runtime does not run a model, in words; undefined: it does. What its tensors are is looked at, no weight is read. */
export async function obstacleTo({ path, kind, container, envelope }: TensorSource): Promise<string | undefined> {
  const { config } = envelope;
  if (container === 'onnx') return 'it is an ONNX model, which hqq/runtime does not run';
  if (config === undefined) return 'without config.json nothing says how the model runs';
  try {
    if (isEncoder(config)) await (await Encoder.open(path)).close();
    else {
      if (kind === 'folder') readModelConfig(config); // says no to most, and costs nothing
      await (await openBlockSource(path)).close();
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof HqqError) || !/^ERR_CHECKPOINT_/.test(error.code)) throw error;
    const why = error.message.replace(/\.$/, '').replace(/got undefined$/, 'got none');
    return `hqq/runtime does not run this model (${why})`;
  }
}

/** The same of what is done block by block: error feedback, and importance in sequence. */
export async function obstacleToRefine(source: TensorSource): Promise<string | undefined> {
  if (isEncoder(source.envelope.config)) return 'it is for language models, and this is an encoder';
  return obstacleTo(source);
}
