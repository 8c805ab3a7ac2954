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
  /** `scaleDtype` does not hold the scale of a group. */
  | 'ERR_SCALE_RANGE'
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
  /** Something that was closed is used. */
  | 'ERR_CLOSED'
  /** An allocation failed. */
  | 'ERR_OUT_OF_MEMORY';

/** Every failure that this package reports, except an abort (that is the signal's own reason). */
export class HqqError extends Error {
  /** `HqqError`: tells it from others where two copies of this package are loaded. */
  override readonly name = 'HqqError';

  /**
   * @param code What went wrong.
   * @param message For people: expected, got, what to do.
   * @param options `cause`, where there is one.
   */
  constructor(
    /** What went wrong. */
    readonly code: HqqErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** What `JSON.stringify` writes, which leaves out an error's message otherwise. `cause` stays out: it may be anything. */
  toJSON(): Pick<HqqError, 'name' | 'code' | 'message'> {
    const { name, code, message } = this;
    return { name, code, message };
  }
}

/** Control, format (bidirectional overrides), surrogate and unassigned characters: they could rewrite the terminal. */
const UNPRINTABLE = /[\p{C}\u2028\u2029]/gu;

function escaped(character: string): string {
  const unit = (piece: string) => `\\u${piece.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return character.split('').map(unit).join('');
}

/** A file name or path as a message shows it: on one line, whatever its bytes. */
export function plain(name: string): string {
  return name.replaceAll(UNPRINTABLE, escaped);
}

/** How a value is shown in a message: short, on one line, and never a wall of numbers. Options come from files, too. */
export function show(value: unknown): string {
  if (typeof value === 'string') return plain(JSON.stringify(shorten(value)));
  if (Array.isArray(value)) return showList(value);
  if (ArrayBuffer.isView(value))
    return `${className(value)}(${'length' in value ? String(value.length) : value.byteLength})`;
  if (typeof value === 'object' && value !== null) return `an object of ${className(value)}`;
  return typeof value === 'function' ? 'a function' : plain(shorten(String(value)));
}

/** Nested lists by their length: eight lists of eight lists are a wall again. */
function showList(list: readonly unknown[]): string {
  const items = list.slice(0, 8).map((item) => (Array.isArray(item) ? `a list of ${item.length}` : show(item)));
  return `[${items.join(', ')}${list.length > 8 ? ', ...' : ''}]`;
}

function className(value: object): string {
  const name: unknown = (value.constructor as { name?: unknown } | undefined)?.name;
  return typeof name === 'string' && name !== '' ? plain(shorten(name)) : 'no class';
}

function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
