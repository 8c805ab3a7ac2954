// Tools from PyPI, each one version with the hashes of its files, kept in .cache/, which git ignores.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { install, TOOLS } from './debian.mjs';

export const root = fileURLToPath(new URL('..', import.meta.url));
export const cache = path.join(root, '.cache');

function run(command, args, seconds) {
  const { status, error, stderr } = spawnSync(command, args, {
    ...{ encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'], timeout: seconds && 1000 * seconds },
  });
  if (status !== 0) throw new Error(`${[command, ...args].join(' ')} failed: ${error?.message ?? stderr.trim()}`);
}

const works = (command, ...args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0;

/** pip, which Debian's Python comes without. */
function needPip(what) {
  if (works('python3', '-m', 'pip', '--version')) return;
  install(TOOLS.pip);
  if (works('python3', '-m', 'pip', '--version')) return;
  throw new Error(
    `Expected Python 3 with pip, which downloads ${what}, got none (Debian: apt-get install python3-pip).`,
  );
}

/**
 * The folder of the package that `scripts/<name>-requirements.txt` names, which is downloaded where it is not there.
 *
 * @param {(folder: string) => void} [prepare] Adds to the folder what the package lacks.
 * @param {number} [seconds] that the download may take; else as many as it does
 */
export function needPackage(name, prepare, seconds) {
  const requirements = path.join(root, 'scripts', `${name}-requirements.txt`);
  const [, version] = /^[\w-]+==(\S+)/m.exec(readFileSync(requirements, 'utf8'));
  const folder = path.join(cache, `${name}-${version}`);
  if (existsSync(folder)) return folder;
  needPip(name);
  console.error(`Downloading ${name} ${version}`);
  const partial = `${folder}.${process.pid}.partial`;
  mkdirSync(cache, { recursive: true });
  try {
    const options = ['--quiet', '--no-deps', '--no-compile', '--only-binary=:all:', '--require-hashes'];
    const target = ['--disable-pip-version-check', '--target', partial, '--requirement', requirements];
    run('python3', ['-m', 'pip', 'install', ...options, ...target], seconds);
    prepare?.(partial);
    renameSync(partial, folder); // whole or not at all
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return folder;
}
