import { createHash } from 'node:crypto';
import * as fs from 'node:fs/promises';
import {
  closeFile,
  createFile,
  openRegular,
  readFully,
  readWhole,
  standing,
  syncFile,
  withPath,
  writeFully,
} from '../files/io.js';
import { parseJson } from '../files/json.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { type FileSum, isOfAnother, isSaved, type Saved } from './records.js';

// The files of a state.

/** Bytes of an index, at most. */
const MAX_BYTES = 256 * 1024 * 1024;
/** Bytes that are read at a time. */
const CHUNK_BYTES = 1024 * 1024;

/** What an index says; undefined: there is none. @throws {HqqError} `ERR_CHECKPOINT_FORMAT` */
export async function readIndex(index: string): Promise<Saved | undefined> {
  if (!(await standing(index))) return undefined;
  const bytes = await readWhole(index, MAX_BYTES);
  let saved: unknown;
  try {
    saved = parseJson(bytes, { file: index });
  } catch (cause) {
    throw damaged(index, 'what is no JSON', cause);
  }
  if (isSaved(saved)) return saved;
  throw damaged(index, isOfAnother(saved) ? 'that of another version of hqq' : 'something else');
}

/** The error for a file that is not as a run left it. */
export function damaged(path: string, got: string, cause?: unknown): HqqError {
  const message = `Expected ${plain(path)} to be the state of a run that tunes a model, got ${got}`;
  return new HqqError(
    'ERR_CHECKPOINT_FORMAT',
    `${message}. restart (--tune-restart) removes it and begins anew.`,
    cause === undefined ? undefined : { cause },
  );
}

/** Fills arrays with what lies in a file, from `at` on. */
export async function readArrays(path: string, at: number, arrays: readonly Uint8Array[]): Promise<void> {
  const { fd } = await openRegular(path);
  try {
    for (const array of arrays) {
      await readFully(fd, path, at, array);
      at += array.byteLength;
    }
  } finally {
    await closeFile(fd);
  }
}

/** Writes a file anew, to the disk. */
export async function writeArrays(path: string, arrays: readonly Uint8Array[]): Promise<FileSum> {
  await withPath('Cannot remove', path, () => fs.rm(path, { force: true }));
  const fd = await createFile(path, 0o600);
  const sum = createHash('sha256');
  let bytes = 0;
  try {
    for (const array of arrays) {
      await writeFully(fd, path, bytes, array);
      sum.update(array);
      bytes += array.byteLength;
    }
    await syncFile(fd, path);
  } finally {
    await closeFile(fd);
  }
  return { bytes, sha256: sum.digest('hex') };
}

/** @throws {HqqError} `ERR_CHECKPOINT_FORMAT` for a file that is not there, or is not what it was; the signal's reason */
export async function checkSum(path: string, wanted: FileSum, signal?: AbortSignal): Promise<void> {
  if (!(await standing(path))) throw damaged(path, 'nothing');
  const { fd, size } = await openRegular(path);
  const sum = createHash('sha256');
  try {
    if (size !== wanted.bytes) throw damaged(path, `${size} bytes, not ${wanted.bytes}`);
    for (let at = 0; at < size; at += CHUNK_BYTES) {
      const chunk = new Uint8Array(Math.min(CHUNK_BYTES, size - at));
      await readFully(fd, path, at, chunk, signal);
      sum.update(chunk);
    }
  } finally {
    await closeFile(fd);
  }
  if (sum.digest('hex') !== wanted.sha256) throw damaged(path, 'other bytes than were written');
}
