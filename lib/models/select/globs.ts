import { layerOf } from '../../containers/names.js';
import { HqqError } from '../../messages/errors.js';
import { suggestion } from '../../messages/suggestion.js';
import { quote } from '../../messages/text.js';
import { compileWildcard } from './wildcard.js';

/** Most names among which the nearest to a misspelt pattern is looked for. */
const MAX_SUGGESTED = 5000;

/** A pattern over tensor names: `*` matches dots (and slashes) too. */
export interface Glob {
  readonly text: string;
  /** Whether it is the tensor's name, or that of its module: without `.weight`. */
  readonly names: (tensor: string) => boolean;
  /** Whether it is or matches one of these. */
  readonly matches: (tensor: string) => boolean;
}

/** @throws {HqqError} `ERR_INVALID_OPTION` for a pattern that is none. */
export function compileGlob(text: string): Glob {
  const match = compileWildcard(text);
  const names = (tensor: string) => tensor === text || layerOf(tensor) === text;
  return { text, names, matches: (tensor) => names(tensor) || match(tensor) || match(layerOf(tensor)) };
}

/** An option of patterns as messages call it: in a program, and on the command line. */
export const GLOB_OPTIONS = {
  include: 'include (--include)',
  exclude: 'exclude (--exclude)',
  overrides: 'overrides (--override)',
} as const;

/** A pattern of a module and of those like it: its layer and its expert are any. */
export const anyNumber = (module: string): string => module.replaceAll(/(^|\.)\d+(?=\.|$)/g, '$1*');

/** The error for a pattern that would silently do nothing. */
export function unmatched(option: keyof typeof GLOB_OPTIONS, glob: Glob, names: Iterable<string>): HqqError {
  const spellings = new Set<string>();
  for (const name of names) {
    if (spellings.size > MAX_SUGGESTED) break;
    const module = layerOf(name);
    const leaf = module.slice(module.lastIndexOf('.') + 1);
    for (const text of [module, name, anyNumber(module), leaf, `*${leaf}`, `*.${leaf}`, `*${leaf}*`])
      spellings.add(text);
  }
  const message = `Expected ${GLOB_OPTIONS[option]} ${quote(glob.text)} to match a tensor, but it matches none.`;
  return new HqqError('ERR_CHECKPOINT_CONTENT', message + suggestion(glob.text, [...spellings]));
}
