// Strings of JSON: escapes and UTF-8.

export const BACKSLASH = 0x5c;
const ESCAPES = new Map(Object.entries({ '"': 34, '\\': 92, '/': 47, b: 8, f: 12, n: 10, r: 13, t: 9 }));
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Throws the error for what is wrong at a byte. */
type Fail = (message: string, at: number) => never;

/** Text from UTF-8; `at` is where its first byte is. */
export function decodeUtf8(bytes: Uint8Array, at: number, fail: Fail): string {
  try {
    return UTF8.decode(bytes);
  } catch {
    return fail('expected UTF-8, got other bytes in the string that begins here', at);
  }
}

/**
 * The string between two quotes, without its escapes. Through bytes, not pieces of strings: 30 MB of `\n` would be an array of
 * 15 million pieces.
 */
export function unescapeString(bytes: Buffer, start: number, end: number, fail: Fail): string {
  const out = Buffer.allocUnsafe(end - start);
  let length = 0;
  for (let at = start; at < end; ) {
    const byte = bytes[at] as number;
    if (byte !== BACKSLASH) {
      out[length++] = byte;
      at++;
      continue;
    }
    const letter = String.fromCharCode(bytes[at + 1] as number);
    const simple = ESCAPES.get(letter);
    if (simple !== undefined) {
      out[length++] = simple;
      at += 2;
    } else if (letter === 'u') {
      let code = hexAt(bytes, at, fail);
      let next = at + 6;
      if (code >= 0xd800 && code < 0xdc00 && bytes[next] === BACKSLASH && bytes[next + 1] === 0x75) {
        const low = hexAt(bytes, next, fail);
        if (low >= 0xdc00 && low < 0xe000) {
          code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
          next += 6;
        }
      }
      // A lone surrogate has no UTF-8: two names that differ would become one when written.
      if (code >= 0xd800 && code < 0xe000) fail('expected surrogates in pairs, got a lone one', at);
      length += out.write(String.fromCodePoint(code), length, 'utf8');
      at = next;
    } else {
      fail('expected an escape that JSON knows after "\\"', at);
    }
  }
  return decodeUtf8(out.subarray(0, length), start, fail);
}

function hexAt(bytes: Buffer, at: number, fail: Fail): number {
  const digits = bytes.toString('latin1', at + 2, at + 6);
  if (!/^[0-9a-fA-F]{4}$/.test(digits)) fail('expected four hexadecimal digits after "\\u"', at);
  return Number.parseInt(digits, 16);
}
