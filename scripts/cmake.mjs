// Builds with CMake, for the scripts beside it.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { run } from './checks.mjs';
import { findProgram } from './debian.mjs';
import { root } from './pypi.mjs';

async function must(command, args, env) {
  const { status, all } = await run(command, args, { env });
  if (status !== 0)
    throw new Error(`${[command, ...args].join(' ')} failed:\n${all.split('\n').slice(-60).join('\n')}`);
}

const compile = (folder, targets, env) =>
  must('cmake', ['--build', folder, '--target', ...targets, '--parallel', String(availableParallelism())], env);

/** Configures a build folder, and builds targets there. */
export async function build(folder, options, targets, env = process.env) {
  const isNew = !existsSync(path.join(folder, 'CMakeCache.txt'));
  const generator = isNew && findProgram('ninja') ? ['-G', 'Ninja'] : [];
  await must('cmake', ['-S', root, '-B', folder, ...generator, ...options], env);
  await compile(folder, targets, env);
}

/** Builds tests of the core in the addon's own folder: of the objects that it is made of. */
export async function buildBesideAddon(targets) {
  const tool = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js');
  await must(process.execPath, [tool, 'configure', '--CDHQQ_BUILD_TESTS=ON']);
  await compile(path.join(root, 'build'), targets);
}
