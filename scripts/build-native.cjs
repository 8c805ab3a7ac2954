#!/usr/bin/env node
// Makes the native addon available: what `npm ci` does in this repository, and what users run where no prebuilt binary fits.
//
//   a binary that loads, no older than its sources   nothing to do
//   else                                             built with cmake-js, which needs CMake and a C++ compiler
//   else                                             one line; JavaScript computes instead, with the same results
//
// HQQ_SKIP_NATIVE=1                            does nothing
// HQQ_REQUIRE_NATIVE=1 or HQQ_BACKEND=native   exits with status 1 where no binary can be had
// HQQ_VERBOSE=1, CI, npm --loglevel verbose    shows the build's output, which is in build/build.log otherwise
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const root = path.join(__dirname, '..');
const buildFolder = path.join(root, 'build');
const { env } = process;
const verbose = Boolean(env.HQQ_VERBOSE || env.CI) || ['verbose', 'silly'].includes(env.npm_config_loglevel);
const required = env.HQQ_REQUIRE_NATIVE === '1' || env.HQQ_BACKEND === 'native';

function say(message) {
  console.error(`hqq: ${message}`);
}

/** Why the binary that would be used does not load; undefined when it does. */
function failureToLoad() {
  // In a process of its own: a binary for another machine may crash, and that must not take npm along.
  const script = `require('node-gyp-build')(${JSON.stringify(root)}).open('scalar')`;
  const { status, signal, stderr } = spawnSync(process.execPath, ['-e', script], { cwd: root, encoding: 'utf8' });
  if (status === 0) return undefined;
  return signal ?? (/^(?:\w*Error): (.*)/m.exec(stderr)?.[1] || `exit status ${status}`);
}

/** Whether a binary is older than what it was built from. Asked in a checkout only: a package's files carry no real times. */
function isStale() {
  if (!fs.existsSync(path.join(root, '.git'))) return false;
  const binary = fs.statSync(require('node-gyp-build').path(root)).mtimeMs;
  const sources = fs
    .readdirSync(path.join(root, 'native'), { recursive: true })
    .map((file) => path.join(root, 'native', file));
  return [path.join(root, 'CMakeLists.txt'), ...sources].some((file) => {
    const stat = fs.statSync(file);
    return stat.isFile() && !file.includes(`${path.sep}tests${path.sep}`) && stat.mtimeMs > binary;
  });
}

function onPath(...programs) {
  const folders = (env.PATH ?? '').split(path.delimiter);
  return programs.some((program) => folders.some((folder) => fs.existsSync(path.join(folder, program))));
}

/** What is missing for a build, or undefined. Windows is cmake-js's to judge: Visual Studio is not on the PATH. */
function missingTools() {
  for (const name of ['cmake-js', 'node-addon-api', 'node-api-headers']) {
    try {
      require.resolve(`${name}/package.json`, { paths: [root] });
    } catch {
      return `the package ${name} is not installed (npm install -D cmake-js node-addon-api node-api-headers)`;
    }
  }
  if (process.platform === 'win32') return undefined;
  if (!onPath('cmake')) return 'CMake is not installed';
  if (!onPath('g++', 'clang++')) return 'no C++ compiler (g++ or clang++) is installed';
  return undefined;
}

/** A build folder that was made elsewhere (a copied checkout) is of no use to CMake. */
function isForeignBuildFolder() {
  const cache = path.join(buildFolder, 'CMakeCache.txt');
  if (!fs.existsSync(cache)) return false;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(fs.readFileSync(cache, 'utf8'))?.[1];
  return home === undefined || path.resolve(home) !== fs.realpathSync(root);
}

/** Builds build/Release/hqq.node. Returns what went wrong, or undefined. */
function build() {
  const missing = missingTools();
  if (missing) return missing;
  // Who runs this file by hand wants the addon; npm runs it unasked.
  const way = env.npm_lifecycle_event === undefined ? '' : ' HQQ_SKIP_NATIVE=1 does without.';
  say(`building the native addon with CMake, which takes a minute or two.${way}`);
  const tool = require.resolve('cmake-js/bin/cmake-js', { paths: [root] });
  const args = [tool, isForeignBuildFolder() ? 'rebuild' : 'build'];
  const parallel = { CMAKE_BUILD_PARALLEL_LEVEL: String(os.availableParallelism()) };
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...parallel, ...env },
    maxBuffer: 2 ** 28, // compilers can be long-winded
    stdio: verbose ? 'inherit' : 'pipe',
  });
  if (!verbose) {
    fs.mkdirSync(buildFolder, { recursive: true });
    fs.writeFileSync(path.join(buildFolder, 'build.log'), `${stdout}${stderr}`);
  }
  if (status === 0) return undefined;
  const where = verbose ? 'see above' : `see ${path.join(buildFolder, 'build.log')}`;
  return `the build failed (${signal ?? `exit status ${status}`}; ${where})`;
}

function main() {
  if (env.HQQ_SKIP_NATIVE === '1') {
    say('no native addon is built: HQQ_SKIP_NATIVE=1.');
    return 0;
  }
  const before = failureToLoad();
  const found = () => path.relative(root, require('node-gyp-build').path(root));
  if (before === undefined && !isStale()) {
    say(`the native addon is there: ${found()}.`);
    return 0;
  }

  const started = Date.now();
  const failure = build() ?? failureToLoad();
  if (failure === undefined) {
    say(`built the native addon in ${Math.round((Date.now() - started) / 1000)} s: ${found()}.`);
    return 0;
  }
  if (before === undefined) {
    say(`the native addon is older than its sources and could not be rebuilt: ${failure}. The old one stays in use.`);
  } else {
    say(
      `no native addon: ${failure}.${required ? '' : ' JavaScript will be used: the same results, many times slower.'}`,
    );
  }
  return required ? 1 : 0;
}

process.exitCode = main();
