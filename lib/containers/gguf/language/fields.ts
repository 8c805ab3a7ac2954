import { HqqError, show } from '../../../messages/errors.js';
import { plain, quote } from '../../../messages/text.js';

/** Largest size or count that a model may claim. */
const MAX_SIZE = 1 << 27;

/** What something says of a model, by name, checked as it is read. `null` counts as absent. */
export class Facts {
  readonly #values: (name: string) => unknown;
  readonly #where: string;

  /** @param where As messages show it. */
  constructor(values: (name: string) => unknown, where: string) {
    this.#values = values;
    this.#where = plain(where);
  }

  get(name: string): unknown {
    return this.#values(name) ?? undefined;
  }

  /** A positive integer. */
  count(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (Number.isSafeInteger(value) && (value as number) > 0 && (value as number) <= MAX_SIZE) return value as number;
    throw this.wrong(name, `an integer in [1, ${MAX_SIZE}]`, value);
  }

  /** A positive number. */
  number(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value === 'number' && value > 0 && Number.isFinite(value)) return value;
    throw this.wrong(name, 'a positive number', value);
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    if (typeof value === 'boolean') return value;
    throw this.wrong(name, 'true or false', value);
  }

  /** The object of that name. */
  object(name: string): Facts | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (typeof value !== 'object' || Array.isArray(value)) throw this.wrong(name, 'an object', value);
    const values = value as Readonly<Record<string, unknown>>;
    return new Facts((key) => (Object.hasOwn(values, key) ? values[key] : undefined), `${this.#where}, ${name}`);
  }

  wrong(name: string, expected: string, got: unknown = this.get(name)): HqqError {
    const shown = typeof got === 'string' ? quote(got) : plain(show(got));
    return new HqqError('ERR_CHECKPOINT_CONTENT', `${this.#where}: Expected ${name} to be ${expected}, got ${shown}.`);
  }
}
