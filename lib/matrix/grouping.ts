import { HqqError, show } from '../messages/errors.js';
import { type Check, choice } from './option.js';

// What weights share, and in how many bits that is stored.

/** What may share a scale and a zero. */
export const GRANULARITIES = ['group', 'channel', 'tensor', 'weight'] as const;
/** One of `GRANULARITIES`. */
export type Granularity = (typeof GRANULARITIES)[number];

/** The option. */
export const GRANULARITY: Check<Granularity> = choice(GRANULARITIES, 'group');

/** Bits that scale and zero may be stored in. */
export const META_BITS = [16, 8] as const;
/** One of `META_BITS`. */
export type MetaBits = (typeof META_BITS)[number];

/** The option. */
export const META: Check<MetaBits> = choice(META_BITS, 16);

/** The group size that a granularity stands for. That of a whole matrix is known when the matrix is: `formOf`. */
export function groupSizeOf(
  { granularity, groupSize }: { readonly granularity: Granularity; readonly groupSize: number | null },
  given: number | null | undefined,
): number | null {
  if (granularity === 'group') return groupSize;
  const size = granularity === 'weight' ? 1 : null;
  if (given === undefined || given === size) return size;
  const message = `Expected no groupSize beside granularity ${granularity}, which takes its place, got ${show(given)}`;
  throw new HqqError('ERR_INVALID_OPTION', `${message}. Leave one of them out.`);
}
