/** What went wrong, for code to branch on. Messages are for people and may change; codes may not. */
export type HqqErrorCode =
  /** An option, a flag or an argument has a value that no input could satisfy, or a name that does not exist. */
  | 'ERR_INVALID_OPTION'
  /** A typed array, a shape or a tensor object is not what the call needs. */
  | 'ERR_INVALID_ARGUMENT'
  /** `groupSize` does not divide the matrix. */
  | 'ERR_GROUP_SIZE'
  /** The pack format cannot hold this number of rows. */
  | 'ERR_PACK_ROWS'
  /** A weight is NaN or infinite. */
  | 'ERR_NON_FINITE_WEIGHT'
  /** Bytes on disk break the format: safetensors, its index, `config.json`, or a quantized layer's keys. */
  | 'ERR_CHECKPOINT_FORMAT'
  /** The checkpoint is sound but this operation does not apply to it: already quantized, nothing to quantize, two strangers compared. */
  | 'ERR_CHECKPOINT_CONTENT'
  /** A file could not be read, written, or is in the way; `cause` is the system's error. */
  | 'ERR_IO'
  /** The native backend was demanded and could not be loaded, or an ISA was demanded that this machine cannot run. */
  | 'ERR_BACKEND_UNAVAILABLE'
  /** An optional package that the call needs is not installed. */
  | 'ERR_DEPENDENCY'
  /** An allocation failed. */
  | 'ERR_OUT_OF_MEMORY';

/** Every failure that this package reports, except an abort (that is the signal's own reason). */
export class HqqError extends Error {
  override readonly name = 'HqqError';

  constructor(
    readonly code: HqqErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** How a value is shown in a message: short, and never a wall of numbers. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value);
  if (Array.isArray(value)) return `[${value.slice(0, 8).map(show).join(', ')}${value.length > 8 ? ', ...' : ''}]`;
  if (ArrayBuffer.isView(value)) return `${value.constructor.name}(${'length' in value ? String(value.length) : value.byteLength})`;
  if (typeof value === 'object' && value !== null) return `an object of ${value.constructor?.name ?? 'no class'}`;
  return String(value);
}
