import type { BigIntStats } from 'node:fs';
import * as fs from 'node:fs/promises';
import { homedir } from 'node:os';
import { isAbsolute, join, relative, sep } from 'node:path';
import { HqqError } from '../messages/errors.js';
import { plain, quote, quoteSome } from '../messages/text.js';
import { type FileKind, PREFIX_BYTES } from './file-kind.js';
import { ioError, kindOf, standing, systemCode, withPath } from './io.js';
import { isOtherWeights } from './model-folder.js';

/** What an output is. */
export type OutputKind = 'file' | 'folder';

/** Most entries of an input folder that are compared with the output; a model folder of more is refused when it is listed. */
const MAX_INPUT_ENTRIES = 20_000;

/** `inner` is `outer` or below it. Both are real paths. */
function isWithin(inner: string, outer: string): boolean {
  const path = relative(outer, inner);
  return path === '' || (path !== '..' && !path.startsWith(`..${sep}`) && !isAbsolute(path));
}

/**
 * Throws when writing `target` could harm an input: it is the input (also through symbolic or hard links), lies inside of it,
 * or holds it. A folder's files count too: in Hugging Face's cache they are links to elsewhere.
 *
 * @param beside What follows the output's name in that of a file that belongs to it, which is checked too.
 */
export async function checkApart(target: string, inputs: readonly string[], beside = ''): Promise<void> {
  await checkOneApart(target, inputs, `got ${plain(target)}, which`);
  if (beside === '') return;
  const place = target + beside;
  await checkOneApart(place, inputs, `got ${plain(target)}, whose tensors may lie in ${plain(place)}, which`);
}

async function checkOneApart(target: string, inputs: readonly string[], got: string): Promise<void> {
  const refuse = (input: string, relation: string): never => {
    const message = `Expected an output apart from the input, ${got} ${relation} ${plain(input)}`;
    throw new HqqError('ERR_INVALID_OPTION', `${message}. Choose another place.`);
  };
  // As BigInts: inode numbers of overlay file systems pass 2^53, where neighbours would look alike.
  const existing = await fs.stat(target, { bigint: true }).catch(() => undefined);
  const real = await fs.realpath(target).catch(() => target);
  const check = async (input: string, path: string): Promise<BigIntStats> => {
    const stat = await fs.stat(path, { bigint: true });
    if (path !== input && !stat.isFile()) return stat;
    const realInput = await fs.realpath(path);
    const same =
      existing !== undefined && existing.ino === stat.ino && existing.dev === stat.dev && existing.ino !== 0n;
    if (same || realInput === real || realInput === target) refuse(input, 'is');
    for (const place of [real, target]) {
      if (stat.isDirectory() && isWithin(place, realInput)) refuse(input, 'lies inside');
      if (isWithin(realInput, place)) refuse(input, 'holds');
    }
    return stat;
  };
  for (const input of inputs) {
    const stat = await withPath('Cannot read', input, () => check(input, input));
    if (!stat.isDirectory()) continue;
    const names = await withPath('Cannot list', input, () => fs.readdir(input));
    for (const name of names.slice(0, MAX_INPUT_ENTRIES)) {
      await check(input, join(input, name)).catch((error: unknown) => {
        if (error instanceof HqqError) throw error; // A link that leads nowhere is no input.
      });
    }
  }
}

/**
 * Throws when the output may not take the place of what stands at `target`. True when there is something to replace.
 *
 * @param made What the output's files are: only such a file, or a folder of such, is replaced.
 */
export async function checkReplaceable(
  target: string,
  kind: OutputKind,
  made: FileKind,
  force: boolean,
  appeared = false,
): Promise<boolean> {
  const refuse = (message: string): never => {
    throw new HqqError('ERR_IO', message);
  };
  const stat = await standing(target);
  const path = plain(target);
  if (kind === 'file' && made.beside !== undefined) {
    const place = target + made.beside;
    const other = await standing(place);
    if (other && !other.isFile())
      refuse(`${plain(place)}, where tensors of the output may lie, is ${kindOf(other)}. Choose another path.`);
    if (other && !force && stat === undefined)
      refuse(`${plain(place)} exists, where tensors of ${path} may lie. Pass force: true (--force) to replace it.`);
  }
  if (stat === undefined) return false;
  const expected = kind === 'file' ? stat.isFile() : stat.isDirectory();
  if (!expected) refuse(`${path} exists and is ${kindOf(stat)}, but the output is a ${kind}. Choose another path.`);
  if (!force)
    refuse(`${path} ${appeared ? 'appeared meanwhile' : 'exists'}. Pass force: true (--force) to replace it.`);
  if (kind === 'file') {
    const isOurs = await withPath('Cannot read', target, () => isEmptyOr(made, target));
    if (!isOurs) refuse(`${path} exists and is not ${made.title}: it is not replaced. Choose another path.`);
    return true;
  }
  const precious = await Promise.all([homedir(), process.cwd()].map((place) => fs.realpath(place).catch(() => place)));
  if (precious.some((place) => isWithin(place, target))) {
    refuse(`${path} holds your home or working folder and is never replaced. Choose another path.`);
  }
  try {
    const reason = await whyNotModel(target, made);
    if (reason !== undefined) refuse(`${path} exists and ${reason}: it is not replaced. Choose another path.`);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false; // Another run moved it aside in this moment.
    throw error instanceof HqqError ? error : ioError('Cannot list', target, error);
  }
  return true;
}

/** Whether a file is empty, or of a kind. */
async function isEmptyOr(kind: FileKind, path: string): Promise<boolean> {
  const file = await fs.open(path, 'r');
  try {
    const { size } = await file.stat();
    const { buffer, bytesRead } = await file.read(new Uint8Array(PREFIX_BYTES), 0, PREFIX_BYTES, 0);
    return size === 0 || kind.begins(buffer.subarray(0, bytesRead), size);
  } finally {
    await file.close();
  }
}

/**
 * Why a folder is not certainly one model and nothing else. Replacing removes all that it holds, and `--out models` typed for
 * `--out models/mine` must not cost anybody their other models, or a project its sources.
 */
async function whyNotModel(
  folder: string,
  { ending, isPart, folder: home = '' }: FileKind,
): Promise<string | undefined> {
  const isWeights = (name: string) => name.endsWith(ending);
  const entries = await fs.readdir(folder, { withFileTypes: true });
  const names = entries.map(({ name }) => name);
  if (names.every((name) => name === 'config.json')) return undefined; // nothing that somebody would miss
  const weights = (home === '' ? names : await fs.readdir(join(folder, home)).catch(() => [])).filter(isWeights);
  if (weights.length === 0) return `does not look like a model folder (no *${ending})`;
  if (weights.length > 1 && !weights.every(isPart)) return `holds more than one model (${quoteSome(weights)})`;
  // Files of another format are another model, or another form of it: no output has them.
  const isIndex = (name: string) => name.endsWith(`${ending}.index.json`);
  const others = names.filter((name) => isOtherWeights(name) && (home !== '' || !(isWeights(name) || isIndex(name))));
  if (others.length > 0) return `holds other models (${quoteSome(others)})`;
  for (const entry of entries.filter((candidate) => candidate.isDirectory() && candidate.name !== home)) {
    const inner = await fs.readdir(join(folder, entry.name));
    // Outputs carry configs of sub-folders along (onnx/config.json), whose weights, in other formats, they leave out.
    if (inner.some((name) => isWeights(name) || isOtherWeights(name)))
      return `holds other models (in ${quote(entry.name)})`;
    if (entry.name === '.git') return 'is a git repository';
  }
  return undefined;
}
