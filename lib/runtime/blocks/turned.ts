import { HqqError } from '../../messages/errors.js';
import type { RopeConfig } from '../config/rope-config.js';

/**
 * What the keys of a cache were turned for: `longrope` turns those of a text of more than `trained` positions by other factors than those
 * of a short one, and attention compares only what was turned alike. So a cache of a short text is no beginning of a long one.
 */
export class Turned {
  /** Where factors change, of each rope that has some. */
  readonly #bounds: readonly number[];
  /** How many of them the text exceeded when it was read. */
  #past = 0;

  constructor({ ropes }: { readonly ropes: readonly RopeConfig[] }) {
    this.#bounds = ropes.flatMap(({ scaling }) => (scaling.type === 'longrope' ? [scaling.trained] : []));
  }

  /** Whether a text of which `held` positions were read may become one of `end`. */
  goesOn(held: number, end: number): boolean {
    return held === 0 || this.#pastOf(end) === this.#past;
  }

  /** @throws {HqqError} `ERR_INVALID_ARGUMENT` where it may not */
  check(held: number, end: number): void {
    if (this.goesOn(held, end)) return;
    const which = this.#bounds.map((bound) => `${bound}`).join(' and ');
    const message = `Expected a text that stays on one side of ${which} positions, where longrope has other factors, got one of ${end}`;
    const all = 'Read the whole text at once into an empty cache (truncate(0))';
    throw new HqqError(
      'ERR_INVALID_ARGUMENT',
      `${message} whose first ${held} were read as part of one on the other side. ${all}, or generate without a cache.`,
    );
  }

  /** A text of `end` positions was read. */
  note(end: number): void {
    this.#past = this.#pastOf(end);
  }

  /** The keys come from another cache. */
  copyFrom(other: Turned): void {
    this.#past = other.#past;
  }

  #pastOf(length: number): number {
    return this.#bounds.filter((bound) => length > bound).length;
  }
}
