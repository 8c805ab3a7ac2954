import { hqq } from './hqq/scheme.js';
import type { Scheme } from './scheme.js';

/** Every scheme, once. The first that a container can hold is what models in it are quantized with. */
export const SCHEMES: Scheme[] = [hqq];

/** The scheme of this name. */
export function schemeNamed(name: string): Scheme {
  const scheme = SCHEMES.find((known) => known.name === name);
  if (scheme === undefined) throw new RangeError(`Expected the name of a scheme, got ${name}.`);
  return scheme;
}
