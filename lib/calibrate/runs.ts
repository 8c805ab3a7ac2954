import type { TensorSource } from '../containers/container.js';
import { HqqError } from '../messages/errors.js';
import { openBlockSource } from '../runtime/source/block-source.js';

/** Why hqq/runtime does not run a model, in words; undefined: it does. What its tensors are is looked at, no weight is read. */
export async function obstacleTo({ path, kind, envelope }: TensorSource): Promise<string | undefined> {
  if (kind !== 'folder' || envelope.config === undefined) return 'without config.json nothing says how the model runs';
  try {
    await (await openBlockSource(path)).close();
    return undefined;
  } catch (error) {
    if (!(error instanceof HqqError) || !/^ERR_CHECKPOINT_/.test(error.code)) throw error;
    return `hqq/runtime does not run this model (${error.message.replace(/\.$/, '')})`;
  }
}
