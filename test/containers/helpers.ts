import * as fs from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { HqqError, type HqqErrorCode } from '../../lib/messages/errors.js';
import { randomOf as uniformOf } from '../support/random.mjs';
import { scratchFolder } from '../support/scratch.js';

/** What is in it is removed at the end of each test file. */
export const SCRATCH = scratchFolder('safetensors');

let counter = 0;

/** A path that nothing has yet. */
export function freshPath(name = 'x'): string {
  const folder = join(SCRATCH, String(counter++));
  fs.mkdirSync(folder, { recursive: true });
  return join(folder, name);
}

/** A new folder that holds `files`. */
export function folderOf(files: Readonly<Record<string, string | Uint8Array>>, name = 'model'): string {
  const folder = freshPath(name);
  fs.mkdirSync(folder);
  for (const [file, data] of Object.entries(files)) {
    fs.mkdirSync(join(folder, file, '..'), { recursive: true });
    fs.writeFileSync(join(folder, file), data);
  }
  return folder;
}

/** A safetensors file: length, `json` as it is, `data` bytes of zeros. */
export function fileBytes(json: string | Uint8Array, data = 0, claimed?: bigint): Buffer {
  const text = Buffer.from(json);
  const bytes = Buffer.alloc(8 + text.byteLength + data);
  bytes.writeBigUInt64LE(claimed ?? BigInt(text.byteLength), 0);
  text.copy(bytes, 8);
  return bytes;
}

/** A safetensors file that holds one U8 tensor of four bytes under each name. */
export function smallFile(...names: readonly string[]): Buffer {
  const entries = names.map((name, i) => [name, { dtype: 'U8', shape: [4], data_offsets: [i * 4, i * 4 + 4] }]);
  return fileBytes(JSON.stringify(Object.fromEntries(entries)), names.length * 4);
}

/** Expects `action` to throw an `HqqError`: `code`, a message of one paragraph that `pattern` matches and that shows no stack. */
export async function expectError(action: () => unknown, code: HqqErrorCode, pattern: RegExp): Promise<void> {
  let error: unknown;
  try {
    await action();
  } catch (caught) {
    error = caught;
  }
  expect(error).toBeInstanceOf(HqqError);
  const { message } = error as HqqError;
  expect(message).toMatch(pattern);
  expect((error as HqqError).code).toBe(code);
  expect(message).not.toMatch(/[\p{C}\u2028\u2029]/u);
  expect(message).not.toMatch(/\bat .*:\d+:\d+/);
  expect(message).toMatch(/\.$/);
  expect(message.length).toBeLessThan(2000);
}

/** Random integers below a number, which a seed repeats. Print the seed where a property fails. */
export function randomOf(seed: number): (below: number) => number {
  const random = uniformOf(seed);
  return (below) => Math.floor(random() * below);
}

/** HQQ_TEST_SEED repeats a run. */
export const SEED = Number(process.env.HQQ_TEST_SEED ?? Date.now() % 1e9);
