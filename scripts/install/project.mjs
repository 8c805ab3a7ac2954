// The package as users get it: packed, and installed in a project of its own where nothing else is to be found.
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { run } from '../checks.mjs';

/** The name under which prebuildify puts this machine's binary. */
function prebuiltName() {
  const glibc = process.platform === 'linux' && process.report.getReport().header.glibcVersionRuntime !== undefined;
  const libc = process.platform === 'linux' ? (glibc ? '.glibc' : '.musl') : '';
  return path.join('prebuilds', `${process.platform}-${process.arch}`, `hqq${libc}.node`);
}

/** Packs a copy of the repository that holds a binary for this machine: the prebuilt one, else the one that was built here. */
export async function pack(root, work) {
  const copy = path.join(work, 'package');
  const { files } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  const wanted = [
    'package.json',
    'README.md',
    'LICENSE',
    ...readdirSync(root).filter((name) => name.startsWith('NOTICE')),
  ];
  for (const name of [...wanted, ...files.filter((name) => !name.startsWith('!'))]) {
    if (existsSync(path.join(root, name))) cpSync(path.join(root, name), path.join(copy, name), { recursive: true });
  }
  writeFileSync(
    path.join(copy, '.npmignore'),
    files
      .filter((name) => name.startsWith('!'))
      .map((name) => name.slice(1))
      .join('\n'),
  );
  const binary = path.join(copy, prebuiltName());
  if (!existsSync(binary)) {
    mkdirSync(path.dirname(binary), { recursive: true });
    cpSync(path.join(root, 'build', 'Release', 'hqq.node'), binary);
  }
  const { status, stdout, stderr } = await run(
    'npm',
    ['pack', '--ignore-scripts', '--json', '--pack-destination', work],
    { cwd: copy },
  );
  if (status !== 0) throw new Error(`npm pack failed:\n${stderr}`);
  const [{ filename, size }] = JSON.parse(stdout);
  return { tarball: path.join(work, filename), size, binary: prebuiltName() };
}

/** A folder with node and npm, and the environment of somebody who has nothing else. */
export function bareEnvironment(work) {
  const bin = path.join(work, 'bin');
  mkdirSync(bin, { recursive: true });
  symlinkSync(process.execPath, path.join(bin, 'node'));
  const folders = process.env.PATH.split(path.delimiter);
  const npm = folders.map((folder) => path.join(folder, 'npm')).find((file) => existsSync(file));
  symlinkSync(realpathSync(npm), path.join(bin, 'npm'));
  // `npm run` tells its children about this repository; they are not to know of it.
  const ours =
    /^(HQQ_|npm_(lifecycle|package|command|execpath|node_execpath)|npm_config_(local_|global_)?prefix$|INIT_CWD|NODE$|OMP_)/;
  const kept = Object.entries(process.env).filter(([name]) => !ours.test(name));
  return { ...Object.fromEntries(kept), PATH: bin };
}

/** Installs the tarball in an empty folder, by default without scripts. Returns what npm said. */
export function install(project, tarball, env, options = ['--ignore-scripts', '--loglevel', 'error']) {
  rmSync(project, { recursive: true, force: true });
  mkdirSync(project, { recursive: true });
  writeFileSync(path.join(project, 'package.json'), '{ "private": true }\n');
  const flags = ['--no-audit', '--no-fund', ...options];
  return run('npm', ['install', '--prefix', project, tarball, ...flags], { cwd: project, env });
}

/** Installs packages that tests need, such as `typescript@5.6.3`, in a folder of their own. Returns its node_modules. */
export async function installTools(folder, packages) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n');
  const flags = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel', 'error', '--prefix', folder];
  const { status, stderr } = await run('npm', ['install', ...packages, ...flags], { cwd: folder, seconds: 180 });
  if (status !== 0) throw new Error(`npm install ${packages.join(' ')} failed: ${stderr}`);
  return path.join(folder, 'node_modules');
}
