import { HqqError, show } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';

/** Largest dimension of a config that is believed: beyond any model, and short of what overflows or exhausts. */
const MAX_SIZE = 1 << 24;

/** The error for a value of config.json, or of `file`, that cannot be. */
export function configError(file: string, message: string): HqqError {
  return new HqqError('ERR_CHECKPOINT_FORMAT', `${plain(file)}: ${plain(message)}`);
}

/** Fields of config.json, or of an object in it, checked as they are read. `null` counts as absent, as in Python. */
export class Fields {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #file: string;
  readonly #prefix: string;

  /** @param file Its path, as messages show it. */
  constructor(values: Readonly<Record<string, unknown>>, file: string, prefix = '') {
    this.#values = values;
    this.#file = file;
    this.#prefix = prefix;
  }

  get(name: string): unknown {
    return this.#values[name] ?? undefined;
  }

  /** A positive integer; `least` 0 lets 0 through. */
  count(name: string, fallback?: number, least = 1, most = MAX_SIZE): number {
    const value = this.get(name) ?? fallback;
    if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value as number;
    throw this.wrong(name, `to be an integer in [${least}, ${most}]`, value);
  }

  /** A positive number. */
  number(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === 'number' && value > 0 && Number.isFinite(value)) return value;
    throw this.wrong(name, 'to be a positive number', value);
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    if (typeof value === 'boolean') return value;
    throw this.wrong(name, 'to be true or false');
  }

  /** The object of that name. */
  object(name: string): Fields | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (typeof value !== 'object' || Array.isArray(value)) throw this.wrong(name, 'to be an object');
    return new Fields(value as Readonly<Record<string, unknown>>, this.#file, `${this.#prefix}${name}.`);
  }

  wrong(name: string, expected: string, got: unknown = this.get(name)): HqqError {
    return configError(this.#file, `Expected ${this.#prefix}${name} ${expected}, got ${show(got)}.`);
  }

  unsupported(name: string, supported: string): HqqError {
    const got = plain(show(this.get(name)));
    return new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `${plain(this.#file)}: ${this.#prefix}${name} ${got} is not supported. Supported: ${supported}.`,
    );
  }
}
