#!/usr/bin/env node
// Tools of the machine: whether they are there, and their installation where it is a Debian that we are root of.
//
//   node scripts/debian.mjs <tools>...   installs some of TOOLS at once, rather than each where it is first missed
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const QEMU = 'qemu-user-static';

/** Programs, or alternatives of one, with the packages that bring them. */
export const TOOLS = {
  compiler: { cmake: 'cmake', 'g++': 'g++' },
  clang: { 'clang++': 'clang libclang-rt-dev' },
  x64: { 'qemu-x86_64-static': QEMU },
  arm64: { 'qemu-aarch64-static': QEMU, 'aarch64-linux-gnu-g++': 'g++-aarch64-linux-gnu' }, // the second for its C library, too
  pip: { pip3: 'python3-pip' },
  redis: { 'redis-server': 'redis-server' },
  chromium: { 'chromium|chromium-browser|google-chrome': 'chromium' },
  wine: { '/usr/lib/wine/wine64': 'wine64' },
};

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
export function aptInstall(packages) {
  if (process.getuid?.() !== 0 || !findProgram('apt-get')) return;
  const options = {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  };
  const apt = (...args) => spawnSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=120', ...args], options);
  if (!isFresh) apt('update');
  isFresh = true;
  apt('install', '-y', '--no-install-recommends', ...packages);
}

const missingOf = (programs) => Object.keys(programs).filter((names) => !names.split('|').some(findProgram));

/** Installs what is missing of `tools`, each like those in `TOOLS`, at once. What cannot be had is for `need` to tell. */
export function install(...tools) {
  const programs = Object.assign({}, ...tools);
  const packages = missingOf(programs).flatMap((names) => programs[names].split(' '));
  if (packages.length > 0) aptInstall([...new Set(packages)]);
}

/**
 * Makes programs available.
 *
 * @throws {Missing} with the names of what is not to be had.
 */
export function need(programs) {
  install(programs);
  const missing = missingOf(programs);
  if (missing.length === 0) return;
  const names = missing.map((name) => `${name.split('|')[0]} (Debian: ${programs[name]})`);
  throw new Missing(`missing: ${names.join(', ')}. HQQ_ALLOW_MISSING_EMULATORS=1 does without.`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const unknown = process.argv.slice(2).filter((name) => !(name in TOOLS));
  if (unknown.length > 0) throw new Error(`Expected ${Object.keys(TOOLS).join(', ')}, got ${unknown.join(', ')}.`);
  install(...process.argv.slice(2).map((name) => TOOLS[name]));
}
