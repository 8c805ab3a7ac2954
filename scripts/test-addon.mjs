#!/usr/bin/env node
// Tests the addon in Node under AddressSanitizer: every operation, aborts, and workers and
// processes that end while they compute. Linux with g++; `npm run build:ts` first, for the tests that start processes.
//
//   node scripts/test-addon.mjs [vitest arguments]
//
// HQQ_TEST_SEED=N   repeats random cases
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { root } from './zig.mjs';

// The folder of test-core.mjs's part "asan": its objects are built once for both.
const folder = path.join(root, 'build-core', 'asan');
const addon = path.join(folder, 'build', 'Release', 'hqq.node');
// Neither reads other memory than the rest does, and both take a minute here: leaks, and every 16-bit number.
const TOO_LONG = ['memory does not grow', 'all 16-bit numbers'];
const LANGUAGE_MODELS = ['operations', 'prepared', 'cache'].map((name) => `runtime/${name}`);
const TESTS = ['identity', 'linear', 'quantized-linear', 'async', 'backend', ...LANGUAGE_MODELS].map(
  (name) => `test/${name}.test.ts`,
);

function run(command, args, options) {
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8', ...options });
  if (result.error) throw result.error;
  return result;
}

function must(command, args) {
  const { status, stdout, stderr } = run(command, args);
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: exit status ${status}\n${stdout}${stderr}`);
  return stdout;
}

must('cmake', [
  ...['-S', root, '-B', folder, '-DHQQ_BUILD_ADDON=ON', '-DHQQ_BUILD_TESTS=ON', '-DHQQ_OPENMP=OFF'],
  ...['-DHQQ_SANITIZE=address', '-DCMAKE_BUILD_TYPE=RelWithDebInfo'],
  `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${path.dirname(addon)}`,
]);
must('cmake', ['--build', folder, '--target', 'hqq', '--parallel', String(availableParallelism())]);

const compiler = /CMAKE_CXX_COMPILER:\w+=(.+)/.exec(readFileSync(path.join(folder, 'CMakeCache.txt'), 'utf8'))[1];
const runtime = must(compiler, ['-print-file-name=libasan.so']).trim();
// Node itself keeps memory until it exits: leaks are the tests' own to find. A wrong read ends the process.
const env = {
  ...process.env,
  HQQ_PREBUILD: folder,
  HQQ_REQUIRE_NATIVE: '1',
  LD_PRELOAD: must('readlink', ['-f', runtime]).trim(),
  // A small quarantine, so that the test of memory that grows sees no more than what is kept from use for a while.
  ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0:exitcode=99:quarantine_size_mb=16',
};

// That the addon at hand is the instrumented one, and that a wrong read of it would be seen.
const probe = `
  const addon = require('node-gyp-build')(${JSON.stringify(root)});
  if (!require('fs').readFileSync('/proc/self/maps', 'utf8').includes(${JSON.stringify(addon)})) throw new Error('another addon');
  console.log(addon.isas.join());`;
const probed = run(process.execPath, ['-e', probe], { env });
if (probed.status !== 0) throw new Error(`The addon does not load under AddressSanitizer:\n${probed.stderr}`);
if (!must('nm', ['-D', addon]).includes('__asan_report_load4')) throw new Error(`${addon} is not instrumented.`);
console.log(`AddressSanitizer, instruction sets: ${probed.stdout.trim()}`);

const vitest = path.join(root, 'node_modules', 'vitest', 'vitest.mjs');
if (!existsSync(vitest)) throw new Error('Expected vitest, got none: run npm ci first.');
const names = ['--testNamePattern', `^(?!.*(${TOO_LONG.join('|')})).*$`];
const { status } = run(process.execPath, [vitest, 'run', ...TESTS, ...names, ...process.argv.slice(2)], {
  env,
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
