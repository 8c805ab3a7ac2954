import { HqqError, show } from './errors.js';
import { suggestion } from './suggestion.js';

/** Whether a value is a signal. It goes by what it does, not by its class: polyfills and other realms have classes of their own. */
export function isSignal(value: unknown): value is AbortSignal {
  const { addEventListener, removeEventListener, throwIfAborted, aborted } = (value ?? {}) as Partial<AbortSignal>;
  const methods = [addEventListener, removeEventListener, throwIfAborted];
  return methods.every((method) => typeof method === 'function') && typeof aborted === 'boolean';
}

function isController(value: object): boolean {
  const { signal, abort } = value as Partial<AbortController>;
  return typeof abort === 'function' && isSignal(signal);
}

/**
 * Refuses what holds no options, which a call would ignore in silence: a signal in place of `{ signal }`, a list.
 *
 * @param known Names of the options that the call takes.
 * @throws {HqqError} `ERR_INVALID_OPTION`
 */
export function checkOptionsObject(given: object, known: readonly string[]): void {
  const refuse = (got: string, advice: string): never => {
    throw new HqqError('ERR_INVALID_OPTION', `Expected an object of options, got ${got}. ${advice}`);
  };
  if (typeof given !== 'object' || given === null) refuse(show(given), `Options: ${known.join(', ')}.`);
  const kind = isSignal(given) ? 'an AbortSignal' : isController(given) ? 'an AbortController' : undefined;
  if (kind !== undefined) {
    const value = kind === 'an AbortSignal' ? '{ signal }' : '{ signal: controller.signal }';
    const where = known.includes('signal') ? '' : ' in the last argument of calls that can be stopped';
    refuse(kind, `A signal goes into ${value}${where}.`);
  }
  if (Array.isArray(given) || ArrayBuffer.isView(given)) refuse(show(given), `Options: ${known.join(', ')}.`);
}

/**
 * An unknown name is an error that offers the nearest one, and so is what holds no options. `known` are the names that the caller
 * accepts.
 */
export function rejectUnknownOptions(given: object, known: readonly string[]): void {
  checkOptionsObject(given, known);
  for (const name of Object.keys(given)) {
    if (!known.includes(name)) {
      throw new HqqError(
        'ERR_INVALID_OPTION',
        `Unknown option ${show(name)}.${suggestion(name, known)} Options: ${known.join(', ')}.`,
      );
    }
  }
}
