// Tools of the machine: whether they are there, and their installation where it is a Debian that we are root of.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

/** A tool that is not there: what needs it may be left out, where that is allowed. */
export class Missing extends Error {}

/** Tests that are for another kind of machine are left out. */
export function onlyOn(arch, what) {
  if (process.arch !== arch) throw new OtherMachine(`${what} is for ${arch} machines; this one is ${process.arch}`);
}

export class OtherMachine extends Error {}

/** HQQ_ALLOW_MISSING_EMULATORS=1: what needs a missing tool is left out, rather than a failure. */
export const allowMissing = process.env.HQQ_ALLOW_MISSING_EMULATORS === '1';

/** The path of a program, or undefined. */
export function findProgram(name) {
  const folders = (process.env.PATH ?? '').split(path.delimiter);
  return folders.map((folder) => path.resolve(folder, name)).find((file) => existsSync(file));
}

let isFresh = false;

/** Installs packages, where that can be done; whether it worked is seen by what they bring. */
export function aptInstall(packages, { recommended = false } = {}) {
  if (process.getuid?.() !== 0 || !findProgram('apt-get')) return;
  const options = {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  };
  const apt = (...args) => spawnSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=120', ...args], options);
  if (!isFresh) apt('update');
  isFresh = true;
  apt('install', '-y', ...(recommended ? [] : ['--no-install-recommends']), ...packages);
}

/**
 * Makes programs available. `programs` are their names (or alternatives) with the packages that bring them.
 *
 * @throws {Missing} with the names of what is not to be had.
 */
export function need(programs, options) {
  const missing = () => Object.entries(programs).filter(([names]) => !names.split('|').some(findProgram));
  if (missing().length > 0)
    aptInstall(
      missing().map(([, name]) => name),
      options,
    );
  if (missing().length === 0) return;
  const names = missing().map(([program, name]) => `${program.split('|')[0]} (Debian: ${name})`);
  throw new Missing(`missing: ${names.join(', ')}. HQQ_ALLOW_MISSING_EMULATORS=1 does without.`);
}
