#!/usr/bin/env node
// Tests the addon in Node under AddressSanitizer and UndefinedBehaviorSanitizer: every operation, aborts, and workers and
// processes that end while they compute. Linux with clang.
//
//   node scripts/test-addon.mjs [vitest arguments]
//
// HQQ_TEST_SEED=N   repeats random cases
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { root } from './pypi.mjs';
import { buildSanitized, sanitizedFolder, sanitizerRuntime } from './sanitized.mjs';

// These read no other memory than the rest does, and take long here (leaks, turns of the event loop, every 16-bit number, more windows of
// attention), or do without the addon.
const LEFT_OUT = [
  'memory does not grow',
  'all 16-bit numbers',
  'without an addon',
  '\\bjs\\b',
  'event loop',
  'the model as it is remembers',
  'with a window of 1(5|7)? ',
];
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

const addon = await buildSanitized('hqq');
// Node itself keeps memory until it exits: leaks are the tests' own to find. A wrong read ends the process.
const env = {
  ...process.env,
  HQQ_PREBUILD: sanitizedFolder,
  HQQ_REQUIRE_NATIVE: '1',
  HQQ_TEST_SHARE: '0.2', // of random cases: the core's tests, under sanitizers too, have more of them
  LD_PRELOAD: sanitizerRuntime(),
  // A small quarantine, so that the test of memory that grows sees no more than what is kept from use for a while.
  ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0:exitcode=99:quarantine_size_mb=16',
  UBSAN_OPTIONS: 'print_stacktrace=1',
};

// That the addon at hand is the instrumented one, and that a wrong read of it would be seen: by a call in kernels, in place elsewhere.
const probe = `
  const addon = require('node-gyp-build')(${JSON.stringify(root)});
  if (!require('fs').readFileSync('/proc/self/maps', 'utf8').includes(${JSON.stringify(addon)})) throw new Error('another addon');
  console.log(addon.isas.join());`;
const probed = run(process.execPath, ['-e', probe], { env });
if (probed.status !== 0) throw new Error(`The addon does not load under AddressSanitizer:\n${probed.stderr}`);
for (const check of ['__asan_load4', '__asan_report_load4', '__ubsan_handle_pointer_overflow'])
  if (!must('nm', ['-D', addon]).includes(check)) throw new Error(`${addon} is not instrumented: it has no ${check}.`);
console.log(`AddressSanitizer and UndefinedBehaviorSanitizer, instruction sets: ${probed.stdout.trim()}`);

const vitest = path.join(root, 'node_modules', 'vitest', 'vitest.mjs');
if (!existsSync(vitest)) throw new Error('Expected vitest, got none: run npm ci first.');
const names = ['--testNamePattern', `^(?!.*(${LEFT_OUT.join('|')})).*$`];
const { status } = run(process.execPath, [vitest, 'run', ...TESTS, ...names, ...process.argv.slice(2)], {
  env,
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
