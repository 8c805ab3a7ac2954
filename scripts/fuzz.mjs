#!/usr/bin/env node
// Fuzzes what reads hostile input. The last line is "N passed, N failed".
//
//   packed        native/fuzz: the core's operations behind the addon's argument checks, under AddressSanitizer and
//                 UndefinedBehaviorSanitizer, with libFuzzer (clang; as root on Debian, it is installed)
//   safetensors   headers, against a second reading of their JSON
//   config        options, config.json, its edits in text, the index
//   checkpoint    whole models on disk, one file of which is damaged
//
//   node scripts/fuzz.mjs                                       all of them: 10^7 inputs, half an hour to an hour
//   node scripts/fuzz.mjs --runs quick                          what CI tries: under a minute
//   node scripts/fuzz.mjs --target config --seed 7 --runs 1000  one of them; the seed is printed
//   node scripts/fuzz.mjs --target config --seed 7 --first 123 --runs 1     input 123 of that seed again
//   node scripts/fuzz.mjs --target packed --input FILE          an input that libFuzzer has written, again
//   node scripts/fuzz.mjs --build                               builds packed, and the core's tests with the same sanitizers
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { aptInstall } from './debian.mjs';
import { root } from './zig.mjs';

const folder = path.join(root, 'build-fuzz');
const TARGETS = ['packed', 'safetensors', 'config', 'checkpoint'];
const PACKED = { quick: 20_000, full: 700_000 };

function run(command, args, options = {}) {
  const { status, signal, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (error) throw error;
  return status ?? signal;
}

function must(command, args, options) {
  const status = run(command, args, options);
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: exit status ${status}`);
}

/** clang++ with its runtime of libFuzzer. */
function findClang() {
  const works = () => {
    const test = ['-x', 'c++', '-fsanitize=fuzzer,address', '-', '-o', '/dev/null'];
    const input = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }';
    return spawnSync('clang++', test, { input }).status === 0;
  };
  if (!works()) aptInstall(['clang', 'libclang-rt-dev']);
  if (!works()) throw new Error('Expected clang++ with libFuzzer. Debian: apt-get install clang libclang-rt-dev');
}

function buildPacked() {
  findClang();
  const flags = [
    '-DCMAKE_CXX_COMPILER=clang++',
    '-DHQQ_BUILD_ADDON=OFF',
    '-DHQQ_BUILD_FUZZERS=ON',
    '-DHQQ_BUILD_TESTS=ON',
    '-DHQQ_OPENMP=OFF',
  ];
  const sanitize = ['-DHQQ_SANITIZE=address,undefined', '-DCMAKE_BUILD_TYPE=RelWithDebInfo'];
  const quiet = { stdio: ['ignore', 'ignore', 'inherit'] };
  must('cmake', ['-S', root, '-B', folder, ...flags, ...sanitize], quiet);
  must('cmake', ['--build', folder, '--parallel', String(availableParallelism())], quiet);
}

function fuzzPacked({ seed, runs, input }) {
  buildPacked();
  const findings = path.join(folder, 'findings/');
  mkdirSync(findings, { recursive: true });
  const program = path.join(folder, 'hqq_fuzz_packed');
  if (input) return run(program, [path.resolve(input)]);
  const count = runs === 'quick' ? PACKED.quick : Number(runs ?? PACKED.full);
  console.log(`packed: seed ${seed}, ${count} inputs`);
  const limits = [
    '-max_len=256',
    '-timeout=10',
    '-rss_limit_mb=3000',
    '-reduce_inputs=0',
    '-verbosity=0',
    '-print_final_stats=1',
  ];
  const { status, signal, stderr } = spawnSync(
    program,
    [`-seed=${seed}`, `-runs=${count}`, `-artifact_prefix=${findings}`, ...limits],
    {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'inherit', 'pipe'],
      maxBuffer: 2 ** 28,
    },
  );
  console.log(
    stderr
      .split('\n')
      .filter((line) => line !== '' && !/NEW_FUNC|# Uses:|^#+ /.test(line))
      .slice(-80)
      .join('\n'),
  );
  // An operation that never gets past the checks is not fuzzed.
  const missed = [...(/^passed the checks .*$/m.exec(stderr)?.[0].matchAll(/(\w+) 0\b/g) ?? [])].map(
    ([, name]) => name,
  );
  if (missed.length > 0 && count >= PACKED.quick) console.log(`packed: never run: ${missed.join(', ')}`);
  return status === 0 && missed.length > 0 && count >= PACKED.quick ? 1 : (status ?? signal);
}

let bundled = false;

/** The fuzzers of TypeScript, bundled with the library's sources. */
function fuzzLibrary(target, { seed, first, runs }) {
  const out = path.join(folder, 'js');
  if (!bundled)
    must(process.execPath, [
      path.join(root, 'node_modules/tsdown/dist/run.mjs'),
      'test/fuzz/main.ts',
      '--no-config',
      '--format',
      'esm',
      '--platform',
      'node',
      '--out-dir',
      out,
      '--log-level',
      'error',
    ]);
  bundled = true;
  const options = Object.entries({ target, seed, first, runs }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, String(value)],
  );
  return run(process.execPath, ['--max-old-space-size=1024', path.join(out, 'main.mjs'), ...options]);
}

const text = { type: 'string' };
const { values } = parseArgs({
  options: { target: text, seed: text, first: text, runs: text, input: text, build: { type: 'boolean' } },
});
if (values.target !== undefined && !TARGETS.includes(values.target)) {
  throw new Error(`Expected --target to be one of ${TARGETS.join(', ')}, got ${values.target}.`);
}
const settings = { ...values, seed: Number(values.seed ?? Date.now() % 1e9) };
const failed = [];
if (values.build) {
  buildPacked();
  process.exit(0);
}
const wanted = values.target === undefined ? TARGETS : [values.target];
for (const target of wanted) {
  const status = target === 'packed' ? fuzzPacked(settings) : fuzzLibrary(target, settings);
  if (status !== 0) failed.push(target);
}
console.log(`${wanted.length - failed.length} passed, ${failed.length} failed`);
process.exitCode = failed.length === 0 ? 0 : 1;
