import { checkSignal } from '../../compute/signal.js';
import { HqqError, show } from '../../messages/errors.js';
import { rejectUnknownOptions } from '../../messages/options-object.js';

/** How one part is read. */
export interface PartOptions {
  /** Ends the reading: the call rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** @throws {HqqError} `ERR_INVALID_OPTION` */
export function checkPartOptions(options: PartOptions): PartOptions {
  if (typeof options !== 'object' || options === null) {
    throw new HqqError('ERR_INVALID_OPTION', `Expected the options to be an object, got ${show(options)}.`);
  }
  rejectUnknownOptions(options, ['signal']);
  const { signal } = options;
  checkSignal(signal);
  return { signal };
}
