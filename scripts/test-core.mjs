#!/usr/bin/env node
// Builds the native core and tests it on every instruction set that it has, here or on an emulated machine.
//
//   native    OpenMP, and threads of our own: all instruction sets of this processor; of the objects that the addon is made of
//   x64       qemu-x86_64 as a processor without AVX2 and as one with it: run-time dispatch
//   avx512    on this processor, else under Bochs (scripts/run-with-avx512.sh)
//   arm64     cross-compiled, under qemu-aarch64
//   asan      AddressSanitizer and UndefinedBehaviorSanitizer: a read or write past the end of any array, what C++ leaves
//             undefined; with clang, in the build that scripts/test-addon.mjs and scripts/fuzz.mjs share
//   tsan      ThreadSanitizer: threads of our own, because it does not see what OpenMP's runtime synchronizes. And alignment, which
//             takes the compiler of part "asan" four times as long. AVX2 kernels alone: scalar ones are what they are compared with
//   symbols   scripts/check-isa-symbols.sh on the objects
//
// Everywhere the fixed cases must give native/tests/digests.txt, line by line. As root on Debian, tools that are missing are
// installed. The last line is "N passed, N failed".
//
//   node scripts/test-core.mjs [part]...          some of these parts only
//   node scripts/test-core.mjs but <part>...      all but these
//   node scripts/test-core.mjs --write-digests    writes native/tests/digests.txt anew, from scalar kernels
//
// HQQ_ALLOW_MISSING_EMULATORS=1   a part whose tools are missing is left out, not a failure
// HQQ_TEST_SEED=N                 repeats random cases
import { readFileSync, writeFileSync } from 'node:fs';
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
import { build, buildBesideAddon } from './cmake.mjs';
import { install, Missing, need, onlyOn, TOOLS } from './debian.mjs';
import { root } from './pypi.mjs';
import { buildSanitized } from './sanitized.mjs';

// Helpers that spin while they wait take the time that an emulator, or the other part, needs.
const env = { OMP_WAIT_POLICY: 'passive', ...process.env };
const run = (command, args) => runWith(command, args, { env });

// ---- builds: each once, one after the other, while what is built is tested

let queue = Promise.resolve();

/** A build that is made once, after those that were asked for before. */
function queued(name, body) {
  let built;
  const now = async () => {
    const started = performance.now();
    const result = await body();
    console.log(`  built ${name} in ${seconds(started)}`);
    return result;
  };
  return () => {
    if (built === undefined) {
      built = queue.then(now);
      queue = built.catch(() => {}); // it fails where it is used
    }
    return built;
  };
}

const folderOf = (name) => path.join(root, 'build-core', name);

/** The test program, in a build folder of its own. */
async function buildTests(name, ...options) {
  await build(folderOf(name), ['-DHQQ_BUILD_ADDON=OFF', '-DHQQ_BUILD_TESTS=ON', ...options], ['hqq_tests']);
  return path.join(folderOf(name), 'hqq_tests');
}

/** The same objects with both kinds of threads; `threads` is static, to be run on emulated machines that have no libraries. */
const buildNative = queued('native', async () => {
  await buildBesideAddon(['hqq_tests_openmp', 'hqq_tests_threads']);
  const folder = path.join(root, 'build');
  return { folder, openmp: path.join(folder, 'hqq_tests_openmp'), threads: path.join(folder, 'hqq_tests_threads') };
});

const buildArm64 = queued('arm64', () => {
  const toolchain = path.join(root, 'cmake', 'toolchain-aarch64-linux-gnu.cmake');
  // Nobody runs what this compiler makes: prebuilt binaries are another's, and have tests of their own. What -O3 adds takes a minute.
  return buildTests('arm64', `-DCMAKE_TOOLCHAIN_FILE=${toolchain}`, '-DHQQ_OPTIMIZE=-O1');
});

const buildAsan = queued('asan', () => buildSanitized('hqq_tests'));

const buildTsan = queued('tsan', () =>
  buildTests('tsan', '-DHQQ_OPENMP=OFF', '-DHQQ_SANITIZE=thread,alignment', '-DCMAKE_BUILD_TYPE=RelWithDebInfo'),
);

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

/**
 * Tests and digests of the program at hand, on all instruction sets that its machine has, which must be these; on `tested` alone,
 * where others have had them.
 */
async function testOn(name, command, args, isas, options = [], tested = isas) {
  if (isas) await chooses(name, command, args, isas);
  const names = namesOf(tested ?? (await isasOf(command, args)));
  const demands = names.flatMap((isa) => ['--isa', isa]);
  const result = await run(command, [...args, ...options, ...demands]);
  countSums(name, result);
  for (const isa of names)
    checkDigests(`${name}, ${isa}`, (await run(command, [...args, '--digest', '--isa', isa])).stdout);
  return result.stdout;
}

async function native(programs) {
  for (const threading of ['openmp', 'threads']) {
    const program = programs[threading];
    // All random cases once: of the two programs nothing differs but what spreads their work over threads.
    const tested = await testOn(
      `native, ${threading}`,
      program,
      [],
      undefined,
      threading === 'openmp' ? [] : ['--quick'],
    );
    const isas = await isasOf(program, []);
    // Without the extension, only its instruction is emulated: what is compiled for it runs on every machine with AVX2.
    if (process.platform === 'linux' && namesOf(isas).includes('avx2') && !isas.includes('avx2 vnni'))
      check(
        `native, ${threading}: AVX-VNNI, emulated`,
        tested.includes('avx2 (vnni) runs with this instruction emulated'),
      );
    check(`native, ${threading}: has that threading`, tested.includes(`threads: ${threading},`), tested.split('\n')[0]);
  }
}

async function x64({ threads: program }) {
  // Part "native" runs the same code on a processor, with all cases. These show that it runs where there is less: a few cases of
  // every kernel, of the best instruction set that each has. No emulation in an emulator: qemu 7.2 does not survive a handler of
  // signals that changes ymm registers.
  for (const [cpu, ...isas] of [
    ['Nehalem', 'scalar plain'],
    ['Haswell', 'avx2 maddubs', 'scalar plain'],
  ]) {
    const options = ['--brief', '--no-emulation'];
    await testOn(`qemu-x86_64, ${cpu}`, 'qemu-x86_64-static', ['-cpu', cpu, program], isas, options, [isas[0]]);
    // What it cannot run must not pass for tested.
    const { status } = await run('qemu-x86_64-static', ['-cpu', cpu, program, '--brief', '--isa', 'avx512']);
    check(`qemu-x86_64, ${cpu}: refuses avx512`, status === 3, `exit status ${status}`);
  }
}

async function avx512({ threads: program }) {
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

async function arm64(program) {
  const args = ['-L', '/usr/aarch64-linux-gnu', program];
  const max = ['-cpu', 'max', ...args];
  await testOn('qemu-aarch64', 'qemu-aarch64-static', max, ['neon i8mm', 'scalar plain'], ['--quick'], ['neon i8mm']);
  // NEON is compared with scalar kernels there; these with themselves, which says less.
  await testOn('qemu-aarch64, scalar', 'qemu-aarch64-static', max, undefined, ['--brief'], ['scalar plain']);
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
  await symbolsOf(folderOf('arm64'), 'aarch64-linux-gnu-nm');
}

async function asan(program) {
  countSums('AddressSanitizer, UndefinedBehaviorSanitizer', await run(program, ['--quick']));
}

async function tsan(program) {
  const runIt = async (...args) => {
    const result = await run(program, args);
    // It knows fewer layouts of memory than newer kernels choose at random: without chance, then.
    return result.all.includes('unexpected memory mapping') ? run('setarch', ['-R', program, ...args]) : result;
  };
  const [best] = namesOf((await runIt('--list')).stdout.split('\n'));
  countSums('ThreadSanitizer', await runIt('--quick', '--isa', best));
}

async function symbolsOf(folder, nm) {
  const script = path.join(root, 'scripts', 'check-isa-symbols.sh');
  const { status, all } = await run('env', [`NM=${nm}`, script, folder]);
  check(`${path.relative(root, folder)}: symbols of instruction sets are their own`, status === 0, all);
}

const symbols = ({ folder }) => symbolsOf(folder, 'nm');

/** What each part needs, is built with, and tests; those with `only` are for such machines alone. */
const PARTS = {
  native: { tools: TOOLS.compiler, build: buildNative, test: native },
  symbols: { tools: TOOLS.compiler, build: buildNative, test: symbols },
  x64: { only: ['x64', 'qemu-x86_64'], tools: { ...TOOLS.compiler, ...TOOLS.x64 }, build: buildNative, test: x64 },
  arm64: {
    only: ['x64', 'cross-compilation'],
    tools: { ...TOOLS.compiler, ...TOOLS.arm64 },
    build: buildArm64,
    test: arm64,
  },
  asan: { tools: { ...TOOLS.compiler, ...TOOLS.clang }, build: buildAsan, test: asan },
  tsan: { tools: TOOLS.compiler, build: buildTsan, test: tsan },
  avx512: { only: ['x64', 'AVX-512'], tools: TOOLS.compiler, build: buildNative, test: avx512 },
};

const EMULATED = ['x64', 'arm64', 'avx512'];

async function testPart(name) {
  const { only, tools, build, test } = PARTS[name];
  if (only) onlyOn(...only);
  need(tools);
  await test(await build());
}

async function writeDigests() {
  const { stdout } = await run((await buildNative()).threads, ['--digest', '--isa', 'scalar']);
  const header = readFileSync(digestFile, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('#'));
  writeFileSync(digestFile, [...header, stdout].join('\n'));
  console.log(`wrote ${digestLines(stdout).length} lines to ${path.relative(root, digestFile)}`);
}

async function main(args) {
  if (args.includes('--write-digests')) return writeDigests();
  const isBut = args[0] === 'but';
  const named = isBut ? args.slice(1) : args;
  checkParts(named, PARTS);
  const wanted = Object.keys(PARTS).filter((name) => named.length === 0 || named.includes(name) !== isBut);
  const here = wanted.map((name) => PARTS[name]).filter(({ only }) => only === undefined || only[0] === process.arch);
  install(...here.map(({ tools }) => tools)); // all at once and first: parts run beside each other, and apt does not
  for (const { build } of here) build().catch(() => {}); // each goes on while others are tested; a part tells its own failure
  // Emulators are slow and use one core: they run beside each other and beside the rest.
  const runAll = async (names) => {
    for (const name of names) await part(name, () => testPart(name));
  };
  const slow = wanted.filter((name) => EMULATED.includes(name));
  await Promise.all([runAll(wanted.filter((name) => !slow.includes(name))), ...slow.map((name) => runAll([name]))]);
  finish();
}

await main(process.argv.slice(2));
