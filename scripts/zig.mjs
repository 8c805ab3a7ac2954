// Zig's C++ compiler, from PyPI: one package that builds for every platform. Kept in .cache/, which git ignores.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { aptInstall } from './debian.mjs';

export const root = fileURLToPath(new URL('..', import.meta.url));
const cache = path.join(root, '.cache');
const requirements = path.join(root, 'scripts', 'zig-requirements.txt');

/** What CMake wants as single programs, and Zig has as subcommands. */
const SUBCOMMANDS = ['ar', 'ranlib'];

function run(command, args) {
  const { status, error, stderr } = spawnSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] });
  if (status !== 0) throw new Error(`${[command, ...args].join(' ')} failed: ${error?.message ?? stderr.trim()}`);
}

const works = (command, ...args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0;

/** pip, which Debian's Python comes without. */
function needPip() {
  if (works('python3', '-m', 'pip', '--version')) return;
  aptInstall(['python3-pip']);
  if (!works('python3', '-m', 'pip', '--version')) {
    throw new Error('Expected Python 3 with pip, which downloads the compiler, got none (Debian: apt-get install python3-pip).');
  }
}

/** The folder of the compiler's programs, which is downloaded where it is not there. */
export function needZig() {
  const [, version] = /^ziglang==(\S+)/m.exec(readFileSync(requirements, 'utf8'));
  const folder = path.join(cache, `zig-${version}`);
  const programs = path.join(folder, 'ziglang');
  if (existsSync(folder)) return programs;
  needPip();
  console.log(`Downloading Zig ${version}`);
  const partial = `${folder}.${process.pid}.partial`;
  mkdirSync(cache, { recursive: true });
  try {
    const options = ['--quiet', '--no-deps', '--no-compile', '--only-binary=:all:', '--require-hashes', '--disable-pip-version-check'];
    run('python3', ['-m', 'pip', 'install', ...options, '--target', partial, '--requirement', requirements]);
    for (const name of SUBCOMMANDS) {
      const script = `#!/bin/sh\nexec "\${0%/*}/zig" ${name} "$@"\n`;
      writeFileSync(path.join(partial, 'ziglang', `zig-${name}`), script, { mode: 0o755 });
    }
    renameSync(partial, folder); // whole or not at all
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return programs;
}

/** The environment of builds: what Zig compiles once for each platform (the C library, libc++) stays in the project's cache. */
export function zigEnvironment() {
  const folder = path.join(cache, 'zig-objects');
  return { ...process.env, ZIG_GLOBAL_CACHE_DIR: folder, ZIG_LOCAL_CACHE_DIR: folder };
}

/** CMake's options of a build with Zig for `target`. */
export function zigOptions(target) {
  return [
    `-DCMAKE_TOOLCHAIN_FILE=${path.join(root, 'cmake', 'toolchain-zig.cmake')}`,
    `-DHQQ_ZIG=${needZig()}`,
    `-DHQQ_ZIG_TARGET=${target}`,
    '-DHQQ_OPENMP=OFF', // Zig has no OpenMP, and threads of our own are as fast: docs/architecture.md
  ];
}

/** Configures and builds a folder. What the compiler says is shown where that fails. */
export function buildWithCMake(folder, options) {
  const ninja = works('ninja', '--version') && !existsSync(path.join(folder, 'Makefile')) ? ['-G', 'Ninja'] : [];
  const steps = [['-S', root, '-B', folder, ...ninja, ...options], ['--build', folder, '--parallel']];
  for (const args of steps) {
    const { status, error, stdout, stderr } = spawnSync('cmake', args, { encoding: 'utf8', env: zigEnvironment(), maxBuffer: 2 ** 28 });
    if (status === 0) continue;
    const output = error?.message ?? `${stdout}${stderr}`.split('\n').slice(-60).join('\n');
    throw new Error(`cmake ${args.join(' ')} failed:\n${output}`);
  }
}
