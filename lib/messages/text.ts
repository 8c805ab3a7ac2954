import { HqqError, plain } from './errors.js';

export { plain };

/** Longest piece of a hostile file that a message repeats: a terminal must not be flooded by a 30 MB tensor name. */
const MAX_QUOTED = 200;

/** A name that a file holds (tensor, dtype, key), quoted, escaped and never longer than a line or two. */
export function quote(name: string): string {
  const short = name.length > MAX_QUOTED ? `${name.slice(0, MAX_QUOTED)}...` : name;
  return plain(JSON.stringify(short));
}

/** Names in a message: the first few, then how many more. */
export function quoteSome(names: readonly string[], most = 4): string {
  const more = names.length - most;
  return names.slice(0, most).map(quote).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

/** Order of UTF-8 bytes. Order of UTF-16 units, JavaScript's own, differs where surrogates meet U+E000 to U+FFFF. */
export function compareBytes(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  const rank = (unit: number) => (unit >= 0xe000 ? unit - 0x800 : unit >= 0xd800 ? unit + 0x2000 : unit);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

/** The error for bytes that break the format: in `file`, what was expected, what came, and what to do. */
export function formatError(file: string, message: string, options?: ErrorOptions): HqqError {
  return new HqqError('ERR_CHECKPOINT_FORMAT', `${plain(file)}: ${message}`, options);
}
