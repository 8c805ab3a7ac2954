#!/usr/bin/env node
// Builds the native core and tests it on every instruction set that it has, here or on an emulated machine.
//
//   native    OpenMP, and threads of our own: all instruction sets of this processor
//   x64       qemu-x86_64 as a processor without AVX2 and as one with it: run-time dispatch
//   avx512    on this processor, else under Bochs (scripts/run-with-avx512.sh)
//   arm64     cross-compiled, under qemu-aarch64
//   asan      AddressSanitizer: a read or write past the end of any array
//   ubsan     UndefinedBehaviorSanitizer: what C++ leaves undefined; with clang, in the build of scripts/fuzz.mjs
//   tsan      ThreadSanitizer: threads of our own, because it does not see what OpenMP's runtime synchronizes
//   symbols   scripts/check-isa-symbols.sh on the objects
//
// Everywhere the fixed cases must give native/tests/digests.txt, line by line. As root on Debian, tools that are missing are
// installed. The last line is "N passed, N failed".
//
//   node scripts/test-core.mjs [part]...          some of these parts only
//   node scripts/test-core.mjs --write-digests    writes native/tests/digests.txt anew, from scalar kernels
//
// HQQ_ALLOW_MISSING_EMULATORS=1   a part whose tools are missing is left out, not a failure
// HQQ_TEST_SEED=N                 repeats random cases
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import {
  check,
  checkDigests,
  checkParts,
  countSums,
  digestFile,
  digestLines,
  finish,
  part,
  run as runWith,
  seconds,
} from './checks.mjs';
import { findProgram, Missing, need, onlyOn } from './debian.mjs';
import { root } from './zig.mjs';

const folder = path.join(root, 'build-core');
const jobs = String(availableParallelism());
// Helpers that spin while they wait take the time that an emulator, or the other part, needs.
const env = { OMP_WAIT_POLICY: 'passive', ...process.env };
const run = (command, args) => runWith(command, args, { env });

// ---- builds

const builds = new Map();

/** The test program, built once in build-core/<name>. */
function build(name, ...options) {
  if (!builds.has(name)) builds.set(name, buildNow(name, options));
  return builds.get(name);
}

async function buildNow(name, options) {
  needTools(COMPILER);
  const started = performance.now();
  const dir = path.join(folder, name);
  const isNew = !existsSync(path.join(dir, 'CMakeCache.txt'));
  const generator = isNew && findProgram('ninja') ? ['-G', 'Ninja'] : [];
  const configure = ['-S', root, '-B', dir, ...generator, '-DHQQ_BUILD_ADDON=OFF', '-DHQQ_BUILD_TESTS=ON', ...options];
  for (const args of [configure, ['--build', dir, '--parallel', jobs]]) {
    const { status, all } = await run('cmake', args);
    if (status !== 0) throw new Error(`build-core/${name} does not build:\n${all.split('\n').slice(-40).join('\n')}`);
  }
  console.log(`  built build-core/${name} in ${seconds(started)}`);
  return path.join(dir, 'hqq_tests');
}

// Static: to be run on emulated machines that have no libraries.
const buildThreads = () => build('threads', '-DHQQ_OPENMP=OFF', '-DCMAKE_EXE_LINKER_FLAGS=-static');
const buildSanitized = (name, sanitizers) =>
  build(name, '-DHQQ_OPENMP=OFF', `-DHQQ_SANITIZE=${sanitizers}`, '-DCMAKE_BUILD_TYPE=RelWithDebInfo');
const buildOpenmp = () => build('openmp', '-DHQQ_OPENMP=ON');

// ---- parts

/** Instruction sets of the program's machine, each with what multiplies integers there. */
async function isasOf(command, args) {
  return (await run(command, [...args, '--list'])).stdout.split('\n').filter(Boolean);
}

const namesOf = (isas) => isas.map((isa) => isa.split(' ')[0]);

/** Which instruction sets and integer products the machine of the program at hand is found to have. */
async function chooses(name, command, args, isas) {
  const got = await isasOf(command, args);
  check(`${name} runs ${isas.join(', ')}`, got.join() === isas.join(), `it runs ${got.join(', ')}`);
}

/** Tests and digests of the program at hand, on all instruction sets that its machine has, which must be these. */
async function testOn(name, command, args, isas, options = []) {
  if (isas) await chooses(name, command, args, isas);
  const got = namesOf(await isasOf(command, args));
  const demands = namesOf(isas ?? got).flatMap((isa) => ['--isa', isa]);
  const result = await run(command, [...args, ...options, ...demands]);
  countSums(name, result);
  for (const isa of got)
    checkDigests(`${name}, ${isa}`, (await run(command, [...args, '--digest', '--isa', isa])).stdout);
  return result.stdout;
}

async function native() {
  for (const [threading, program] of [
    ['openmp', await buildOpenmp()],
    ['threads', await buildThreads()],
  ]) {
    const tested = await testOn(`native, ${threading}`, program, []);
    const isas = await isasOf(program, []);
    // Without the extension, only its instruction is emulated: what is compiled for it runs on every machine with AVX2.
    if (process.platform === 'linux' && namesOf(isas).includes('avx2') && !isas.includes('avx2 vnni'))
      check(
        `native, ${threading}: AVX-VNNI, emulated`,
        tested.includes('avx2 (vnni) runs with this instruction emulated'),
      );
    const { stdout } = await run(program, ['--quick']);
    check(
      `build-core/${threading} has that threading`,
      stdout.includes(`threads: ${threading}`),
      stdout.split('\n')[0],
    );
  }
}

async function x64() {
  onlyOn('x64', 'qemu-x86_64');
  needTools(X64);
  const program = await buildThreads();
  // No emulation in an emulator: qemu 7.2 does not survive a handler of signals that changes ymm registers.
  for (const [cpu, isas] of [
    ['Nehalem', ['scalar plain']],
    ['Haswell', ['avx2 maddubs', 'scalar plain']],
  ]) {
    await testOn(`qemu-x86_64, ${cpu}`, 'qemu-x86_64-static', ['-cpu', cpu, program], isas, [
      '--quick',
      '--no-emulation',
    ]);
    // What it cannot run must not pass for tested.
    const { status } = await run('qemu-x86_64-static', ['-cpu', cpu, program, '--quick', '--isa', 'avx512']);
    check(`qemu-x86_64, ${cpu}: refuses avx512`, status === 3, `exit status ${status}`);
  }
}

async function avx512() {
  onlyOn('x64', 'AVX-512');
  const program = await buildThreads();
  if (namesOf(await isasOf(program, [])).includes('avx512')) {
    console.log('  this processor has AVX-512: part "native" has tested it');
    return;
  }
  // Bochs rounds ties of float16 wrongly, whatever the instruction set: AVX-512 is compared with AVX2 there, which other parts
  // compare with scalar on machines that round well, and with the file in all cases that do not round to float16.
  const tests = ['--quick', '--isa', 'avx512', '--reference', 'avx2'];
  const digests = ['--digest', '--isa', 'avx512', '--and', '--digest', '--isa', 'avx2'];
  const emulator = path.join(root, 'scripts', 'run-with-avx512.sh');
  const result = await run(emulator, [program, '--list', '--and', ...tests, '--and', ...digests]);
  if (result.status === 125) throw new Missing(`the emulator does not work:\n${result.all}`);
  const isas = ['avx512 vnni', 'avx2 maddubs', 'scalar plain'];
  check(`bochs runs ${isas.join(', ')}`, result.stdout.startsWith(`${isas.join('\n')}\n`), result.stdout.slice(0, 200));
  countSums('bochs, avx512', result);
  const lines = digestLines(result.stdout);
  const half = lines.length / 2;
  const [avx512Lines, avx2Lines] = [lines.slice(0, half).join('\n'), lines.slice(half).join('\n')];
  check('bochs: the digests of avx512 are those of avx2', avx512Lines === avx2Lines && lines.length > 0);
  const roundsToHalf = (line) => / metaDtype=1 /.test(line) || /^dequantize .* dtype=1 /.test(line);
  checkDigests('bochs, avx512, all but float16', avx512Lines, roundsToHalf);
}

async function arm64() {
  onlyOn('x64', 'cross-compilation');
  needTools(ARM64);
  const program = await build(
    'arm64',
    `-DCMAKE_TOOLCHAIN_FILE=${path.join(root, 'cmake', 'toolchain-aarch64-linux-gnu.cmake')}`,
  );
  const args = ['-L', '/usr/aarch64-linux-gnu', program];
  await testOn(
    'qemu-aarch64',
    'qemu-aarch64-static',
    ['-cpu', 'max', ...args],
    ['neon i8mm', 'scalar plain'],
    ['--quick'],
  );
  // Machines with less: that has run sdot and smull too, these must choose them.
  for (const [cpu, dot] of [
    ['neoverse-n1', 'sdot'],
    ['cortex-a72', 'smull'],
  ])
    await chooses(
      `qemu-aarch64, ${cpu}`,
      'qemu-aarch64-static',
      ['-cpu', cpu, ...args],
      [`neon ${dot}`, 'scalar plain'],
    );
  await symbolsOf('arm64', 'aarch64-linux-gnu-nm');
}

async function asan() {
  const program = await buildSanitized('asan', 'address');
  countSums('AddressSanitizer', await run(program, ['--quick']));
}

async function ubsan() {
  const result = await run(process.execPath, [path.join(root, 'scripts', 'fuzz.mjs'), '--build']);
  if (result.status !== 0) throw new Error(`it does not build:\n${result.all.slice(-2000)}`);
  countSums('UndefinedBehaviorSanitizer, clang', await run(path.join(root, 'build-fuzz', 'hqq_tests'), ['--quick']));
}

async function tsan() {
  const program = await buildSanitized('tsan', 'thread');
  let result = await run(program, ['--quick']);
  // It knows fewer layouts of memory than newer kernels choose at random: without chance, then.
  if (result.all.includes('unexpected memory mapping')) result = await run('setarch', ['-R', program, '--quick']);
  countSums('ThreadSanitizer', result);
}

async function symbolsOf(name, nm) {
  const script = path.join(root, 'scripts', 'check-isa-symbols.sh');
  const { status, all } = await run('env', [`NM=${nm}`, script, path.join(folder, name)]);
  check(`build-core/${name}: symbols of instruction sets are their own`, status === 0, all);
}

async function symbols() {
  await buildOpenmp();
  await symbolsOf('openmp', 'nm');
}

const PARTS = { native, symbols, x64, arm64, asan, ubsan, tsan, avx512 };

const COMPILER = { cmake: 'cmake', 'g++': 'g++' };
const ARM64 = {
  ...COMPILER,
  'aarch64-linux-gnu-g++': 'g++-aarch64-linux-gnu',
  'qemu-aarch64-static': 'qemu-user-static',
};
const X64 = { ...COMPILER, 'qemu-x86_64-static': 'qemu-user-static' };

/** With what they recommend: the libraries of a cross compiler. */
const needTools = (programs) => need(programs, { recommended: true });

/** All at once and first: parts run beside each other, and apt does not. What cannot be had is the part's own affair. */
function installTools(wanted) {
  const ours =
    process.arch === 'x64' ? { ...(wanted.includes('x64') && X64), ...(wanted.includes('arm64') && ARM64) } : {};
  try {
    needTools({ ...COMPILER, ...ours });
  } catch (error) {
    if (!(error instanceof Missing)) throw error;
  }
}

async function writeDigests() {
  const { stdout } = await run(await buildThreads(), ['--digest', '--isa', 'scalar']);
  const header = readFileSync(digestFile, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('#'));
  writeFileSync(digestFile, [...header, stdout].join('\n'));
  console.log(`wrote ${digestLines(stdout).length} lines to ${path.relative(root, digestFile)}`);
}

async function main(args) {
  mkdirSync(folder, { recursive: true });
  if (args.includes('--write-digests')) return writeDigests();
  checkParts(args, PARTS);
  const wanted = Object.keys(PARTS).filter((name) => args.length === 0 || args.includes(name));
  installTools(wanted);
  // The emulator is slow and uses one core: it runs beside the others.
  const beside = wanted.includes('avx512') ? part('avx512', PARTS.avx512) : undefined;
  for (const name of wanted) if (name !== 'avx512') await part(name, PARTS[name]);
  await beside;
  finish();
}

await main(process.argv.slice(2));
