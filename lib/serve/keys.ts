import { createHash, timingSafeEqual } from 'node:crypto';
import { readWhole } from '../files/io.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { Failure } from './failure.js';

const digest = (text: string | Buffer) => createHash('sha256').update(text).digest();

/** Checks the header `authorization` of a request. */
export type KeyCheck = (authorization: string | undefined) => void;

/** A check that any of `keys` passes. @throws {Failure} 401, from the check */
export function checkKeys(keys: readonly string[]): KeyCheck {
  const known = keys.map(digest);
  return (authorization) => {
    const given = /^Bearer +(.+)$/i.exec(authorization ?? '')?.[1];
    const [type, code] = ['invalid_request_error', 'invalid_api_key'];
    if (given === undefined)
      throw new Failure(401, 'Expected an API key, in the header "authorization: Bearer <key>".', { type, code });
    const key = given.replace(/[ \t]+$/, '');
    // Node.js reads each byte of a header as a character: some clients send UTF-8, others such bytes.
    const own = [digest(Buffer.from(key, 'latin1')), digest(key)];
    // All are compared, each in the same time whatever it is.
    if (known.filter((one) => own.filter((sent) => timingSafeEqual(one, sent)).length > 0).length === 0)
      throw new Failure(401, 'The API key is none of this server.', { type, code });
  };
}

/** Largest file of keys. */
const MAX_BYTES = 1 << 20;

/** A file of keys: one a line; empty lines and those that begin with # are left out. @throws {HqqError} `ERR_IO`, `ERR_INVALID_OPTION` */
export async function readKeys(path: string): Promise<string[]> {
  const text = (await readWhole(path, MAX_BYTES)).toString('utf8');
  const keys = text.split(/\r?\n/).flatMap((line) => (/^\s*(#|$)/.test(line) ? [] : [line.trim()]));
  if (keys.length > 0) return keys;
  throw new HqqError('ERR_INVALID_OPTION', `Expected ${plain(path)} to hold API keys, one a line, got none.`);
}
