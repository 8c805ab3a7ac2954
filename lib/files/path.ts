import { fileURLToPath } from 'node:url';
import { HqqError, show } from '../messages/errors.js';

/** A path, or a `file:` URL, as `new URL('model', import.meta.url)` makes one. */
export type FilePath = string | URL;

/** URLs of other realms are URLs, too. */
function isUrl(value: unknown): value is URL {
  const { href, protocol } = (value ?? {}) as Partial<URL>;
  return typeof value === 'object' && typeof href === 'string' && typeof protocol === 'string';
}

/**
 * The path that was given.
 *
 * @param name What it is, as a message calls it: "the input".
 * @param kind What there must be: "a model folder".
 * @throws {HqqError} `ERR_INVALID_OPTION` for what is neither a path nor a `file:` URL.
 */
export function pathOf(path: FilePath, name: string, kind = 'a .safetensors file or a model folder'): string {
  const refuse = (got: string, advice = '', options?: ErrorOptions): never => {
    throw new HqqError(
      'ERR_INVALID_OPTION',
      `Expected ${name} to be the path or file: URL of ${kind}, got ${got}.${advice}`,
      options,
    );
  };
  if (isUrl(path)) {
    try {
      return fileURLToPath(path.href);
    } catch (error) {
      return refuse(show(path.href), webAdvice(path.href), { cause: error });
    }
  }
  if (typeof path === 'string' && /^(file|https?):\/\//i.test(path))
    return refuse(`the text ${show(path)}`, adviceFor(path));
  return typeof path === 'string' && path !== '' && !path.includes('\0')
    ? path
    : refuse(show(path), argumentAdvice(path, name));
}

/** Options stand behind the path of an output, not in its place. */
function argumentAdvice(given: unknown, name: string): string {
  const isOptions = name === 'the output' && typeof given === 'object' && given !== null;
  return isOptions ? ' It is an argument of its own, before the options.' : '';
}

/** What to write in place of a URL that came as text. */
function adviceFor(text: string): string {
  const web = webAdvice(text);
  if (web !== '') return web;
  try {
    return ` Write the path, ${show(fileURLToPath(text))}; in a program, new URL(...) does as well.`;
  } catch {
    return ' Write the path.';
  }
}

function webAdvice(url: string): string {
  return /^https?:/i.test(url) ? ' Nothing is downloaded: fetch it first (hf download), and pass its folder.' : '';
}
