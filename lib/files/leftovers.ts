import * as fs from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { plain, quoteSome } from '../messages/text.js';
import { formatBytes, plural } from '../messages/units.js';
import { settleBesideSync } from './beside.js';
import { standing, systemCode, withPath } from './io.js';
import { digest, isAlive, isOwnDisk, type Life, parseMark, RUN_MARK, type RunMark } from './run-mark.js';

// What runs leave beside an output that were killed. A run that is alive must never lose what it writes; what a dead one left should
// go, since it may be as large as a model. The name says who wrote it (RunMark):
//
//   - same kernel, same boot, same process namespace: its process is looked up, and in it its thread. It is dead when there is none of
//     its id, when that is a zombie, or began at another time (of the three, systems without /proc tell the first alone, and that of
//     processes: what is in doubt stays, that of a terminated worker thread as long as its process);
//   - what seems to have been here: an earlier boot of this machine, a container of an earlier boot on a disk that is the machine's own or,
//     without /proc, a process of it that has ended. It is dead too, when it was silent for half an hour. Clones of a machine have its
//     names, and its disk may be served to others, which may be at work on it. A run that is alive touches its output every ten
//     minutes (open-outputs.ts);
//   - all else, other containers and other machines on a shared disk: nobody can ask for it. One that was silent for a week is taken
//     for dead. If it was only frozen, it fails when it goes on, and says so: an output appears whole or not at all, still.

/** Milliseconds of silence after which a run is taken for dead that cannot be looked up. */
const SILENCE = {
  /** It seems to have been here, and to have ended: several signs of life that did not come, with clocks that differ. */
  unlikely: 30 * 60 * 1000,
  /** Nothing is known: longer than a machine sleeps over holidays. */
  unknown: 7 * 24 * 60 * 60 * 1000,
};

/** Bytes that a name may have, on the file systems of Linux; the others count longer units. */
const LONGEST_NAME = 255;
/** Bytes of the longest mark with what stands around it. */
const LONGEST_SUFFIX = '.4294967295.4294967295.ffffffff.ffffffff.ffffffff.18446744073709551615.replaced.partial_data'
  .length;

/** What one run left. */
interface Leftovers {
  readonly mark: string;
  readonly run: RunMark;
  /** The half-written output, if it is there. */
  partial?: string;
  /** The old folder that it moved aside, if it is there. */
  replaced?: string;
  /** A file that belongs to either, if one is there. */
  beside?: string;
}

/** A half-written output that stays because its run cannot be looked up. */
export interface Left {
  readonly path: string;
  readonly life: 'unlikely' | 'unknown';
}

/** Where a run writes an output of the name `target`. */
export function partialOf(target: string, mark = RUN_MARK): string {
  return join(dirname(target), `${stemOf(target)}.${mark}.partial`);
}

/** Where an old folder waits while the new one takes its place. */
export function asideOf(target: string, mark = RUN_MARK): string {
  return join(dirname(target), `${stemOf(target)}.${mark}.replaced.partial`);
}

/** How the names begin: as the output's own, or as much of it as leaves room for the rest, told apart by a digest of the whole. */
function stemOf(target: string): string {
  const name = basename(target);
  const room = LONGEST_NAME - LONGEST_SUFFIX;
  if (Buffer.byteLength(name) <= room) return name;
  const end = `~${digest(name)}`;
  let stem = '';
  for (const character of name) {
    if (Buffer.byteLength(stem + character + end) > room) break;
    stem += character;
  }
  return stem + end;
}

/**
 * Clears what dead runs left beside `target`: a half-written output is removed; an old folder that was moved aside goes back if
 * nothing took its place. `isOurs` says which outputs of this thread are being written.
 *
 * @param beside What follows the output's name in that of a file that belongs to it.
 * @returns the half-written outputs that stay because their runs cannot be looked up: `noteOf` tells of them
 */
export async function clearLeftovers(
  target: string,
  isOurs: (partial: string) => boolean,
  beside?: string,
): Promise<readonly Left[]> {
  const folder = dirname(target);
  const names = await withPath('Cannot list', folder, () => fs.readdir(folder));
  const dead: Leftovers[] = [];
  const left: Left[] = [];
  const ownDisk = isOwnDisk(folder);
  for (const [mark, leftovers] of groupByRun(names, stemOf(target), beside)) {
    const own = mark === RUN_MARK;
    const life = own ? 'yes' : isAlive(leftovers.run, ownDisk);
    const alive = own ? isOurs(partialOf(target)) : await mayBeAlive(folder, leftovers, life);
    if (!alive) dead.push(leftovers);
    else if (leftovers.partial !== undefined && (life === 'unlikely' || life === 'unknown'))
      left.push({ path: join(folder, leftovers.partial), life });
  }
  for (const { mark, beside: name } of dead) {
    if (name === undefined || beside === undefined) continue;
    const places = { path: partialOf(target, mark), target, aside: asideOf(target, mark) };
    await withPath('Cannot restore', target + beside, async () => settleBesideSync(places, beside));
  }
  for (const { replaced } of dead) {
    if (replaced === undefined || (await standing(target)) !== undefined) continue;
    await withPath('Cannot restore', target, () => restore(join(folder, replaced), target));
  }
  // Best effort: what cannot be removed now is tried again by the next run.
  for (const { partial, replaced } of dead) {
    for (const name of [partial, replaced]) {
      if (name !== undefined) await fs.rm(join(folder, name), { recursive: true, force: true }).catch(() => {});
    }
  }
  return left;
}

/** What users should know of half-written outputs that were left standing; undefined where none of them is there any more. */
export async function noteOf(left: readonly Left[]): Promise<string | undefined> {
  const sizes = await Promise.all(left.map(({ path }) => sizeOf(path)));
  const there = left.filter((_, index) => sizes[index] !== undefined);
  if (there.length === 0) return undefined;
  const bytes = sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
  const one = there.length === 1;
  const what = `${plural(there.length, 'half-written output')} of other runs for this place, ${formatBytes(bytes)}`;
  const names = quoteSome(there.map(({ path }) => basename(path)));
  const who = `${one ? 'Its run' : 'Their runs'} may be at work, in another container or on another machine`;
  const silence = there.some(({ life }) => life === 'unknown') ? 'a week' : 'half an hour';
  return (
    `${what}, ${one ? 'stands' : 'stand'} in ${plain(dirname(there[0]!.path))}: ${names}. ${who}. If not, remove ${one ? 'it' : 'them'} ` +
    `(rm -r); a run for this place does so ${silence} after the last sign of life.`
  );
}

/** Bytes of a file, or of the files in a folder; undefined where there is nothing. */
async function sizeOf(path: string): Promise<number | undefined> {
  try {
    const stat = await fs.lstat(path);
    if (!stat.isDirectory()) return stat.size;
    const sizes = await Promise.all((await fs.readdir(path)).map((name) => sizeOf(join(path, name))));
    return sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0);
  } catch {
    return undefined;
  }
}

/** Moves an old folder back. Where it has gone, or something has come in its place, another run was faster. */
async function restore(replaced: string, target: string): Promise<void> {
  try {
    await fs.rename(replaced, target);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' && (await standing(target)) === undefined) throw error;
  }
}

function groupByRun(names: readonly string[], stem: string, beside = ''): ReadonlyMap<string, Leftovers> {
  const groups = new Map<string, Leftovers>();
  for (const name of names) {
    if (!name.startsWith(`${stem}.`)) continue;
    const isBeside = beside !== '' && name.endsWith(`.partial${beside}`);
    const rest = name.slice(stem.length + 1, isBeside ? -beside.length : undefined);
    const [, mark, replaced] = /^([\w.]+?)(\.replaced)?\.partial$/.exec(rest) ?? [];
    const run = mark === undefined ? undefined : parseMark(mark);
    if (mark === undefined || run === undefined) continue;
    const group = groups.get(mark) ?? { mark, run };
    groups.set(mark, group);
    group[isBeside ? 'beside' : replaced === undefined ? 'partial' : 'replaced'] = name;
  }
  return groups;
}

async function mayBeAlive(folder: string, { partial, replaced, beside }: Leftovers, life: Life): Promise<boolean> {
  if (life === 'yes' || life === 'no') return life === 'yes';
  try {
    // The half-written output is what a run touches; an old folder alone has stayed behind, and only its change of name is new.
    const stat = await fs.stat(join(folder, partial ?? replaced ?? beside!));
    return Date.now() - (partial === undefined ? stat.ctimeMs : stat.mtimeMs) < SILENCE[life];
  } catch {
    return true; // It moved in this moment: somebody is at work.
  }
}
