import { plain } from '../../messages/text.js';

/** A path as a shell and `hqq` would need it, to be copied. */
export function shellWord(path: string): string {
  const word = path.startsWith('-') ? `./${path}` : path;
  return /^[\w./@%+=:,-]+$/.test(word) ? word : `'${plain(word).replaceAll("'", "'\\''")}'`;
}
