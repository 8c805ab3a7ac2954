import * as fs from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { standing, withPath } from './io.js';
import { isAlive, parseMark, RUN_MARK, type RunMark } from './run-mark.js';

// What runs leave beside an output that were killed. A run that is alive must never lose what it writes; what a dead one left should
// go, since it may be as large as a model. The name says who wrote it (RunMark):
//
//   - same kernel, same boot, same process namespace: its process is looked up. It is dead when there is none of its id, when that is a
//     zombie, or began at another time (of the three, systems without /proc tell the first alone: what is in doubt stays);
//   - an earlier boot of this machine, outside of containers: dead;
//   - all else, other containers and other machines on a shared disk: nobody can ask for it. A run that is alive touches its output
//     (open-outputs.ts); one that was not touched for a week is taken for dead. If it was only frozen, it fails when it goes on,
//     and says so: an output appears whole or not at all, still.

/** Milliseconds after which a run that cannot be looked up is taken for dead: longer than a machine sleeps over holidays. */
const SILENCE = 7 * 24 * 60 * 60 * 1000;

/** What one run left. */
interface Leftovers {
  readonly run: RunMark;
  /** The half-written output, if it is there. */
  partial?: string;
  /** The old folder that it moved aside, if it is there. */
  replaced?: string;
}

/** Where a run writes an output of the name `target`. */
export function partialOf(target: string, mark = RUN_MARK): string {
  return `${target}.${mark}.partial`;
}

/** Where an old folder waits while the new one takes its place. */
export function asideOf(target: string, mark = RUN_MARK): string {
  return `${target}.${mark}.replaced.partial`;
}

/**
 * Clears what dead runs left beside `target`: a half-written output is removed; an old folder that was moved aside goes back if
 * nothing took its place. `isOurs` says which outputs of this thread are being written.
 */
export async function clearLeftovers(target: string, isOurs: (partial: string) => boolean): Promise<void> {
  const folder = dirname(target);
  const names = await withPath('Cannot list', folder, () => fs.readdir(folder));
  const dead: Leftovers[] = [];
  for (const [mark, leftovers] of groupByRun(names, basename(target))) {
    const own = mark === RUN_MARK;
    const alive = own ? isOurs(partialOf(target)) : await mayBeAlive(folder, leftovers);
    if (!alive) dead.push(leftovers);
  }
  for (const { replaced } of dead) {
    if (replaced === undefined || (await standing(target)) !== undefined) continue;
    await withPath('Cannot restore', target, () => fs.rename(join(folder, replaced), target));
  }
  // Best effort: what cannot be removed now is tried again by the next run.
  for (const { partial, replaced } of dead) {
    for (const name of [partial, replaced]) {
      if (name !== undefined) await fs.rm(join(folder, name), { recursive: true, force: true }).catch(() => {});
    }
  }
}

function groupByRun(names: readonly string[], target: string): ReadonlyMap<string, Leftovers> {
  const groups = new Map<string, Leftovers>();
  for (const name of names) {
    if (!name.startsWith(`${target}.`)) continue;
    const [, mark, replaced] = /^([\w.]+?)(\.replaced)?\.partial$/.exec(name.slice(target.length + 1)) ?? [];
    const run = mark === undefined ? undefined : parseMark(mark);
    if (mark === undefined || run === undefined) continue;
    const group = groups.get(mark) ?? { run };
    groups.set(mark, group);
    group[replaced === undefined ? 'partial' : 'replaced'] = name;
  }
  return groups;
}

async function mayBeAlive(folder: string, { run, partial, replaced }: Leftovers): Promise<boolean> {
  const alive = isAlive(run);
  if (alive !== 'unknown') return alive === 'yes';
  try {
    // The half-written output is what a run touches; an old folder alone has stayed behind, and only its change of name is new.
    const stat = await fs.stat(join(folder, partial ?? replaced!));
    return Date.now() - (partial === undefined ? stat.ctimeMs : stat.mtimeMs) < SILENCE;
  } catch {
    return true; // It moved in this moment: somebody is at work.
  }
}
