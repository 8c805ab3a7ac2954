#!/usr/bin/env node
// Tests the binaries in prebuilds/, each as far as one x64 Debian machine can run it.
//
//   facts          what each needs, exports, how large it is (test/prebuilds.test.ts), and what npm would publish
//   host           this machine's own binary, on the Node that runs this
//   linux-x64      Node 20, 22, 24 and 26: all operations, worker threads, ends of the process
//   processors     Node 20 on emulated processors: without AVX2, and with it
//   linux-arm64    Node 20 to 26 for arm64 under qemu-aarch64, with i8mm, with sdot, and without
//   win32-x64      Node 20 for Windows under Wine
//   musl           no Node for musl can be had: the core's test program, built with the same compiler and flags, linked
//                  statically; here, on processors without AVX2, as AVX-512 under Bochs, and for arm64 under qemu-aarch64
//
// macOS and Windows on ARM cannot be run here; .github/workflows/prebuild.yml does. What runs in Node is build-conformance/,
// made of the tests (test/conformance/main.ts). As root on Debian, tools that are missing are installed; Node comes from npm.
// The last line is "N passed, N failed".
//
//   node scripts/test-prebuilds.mjs [part]...     some parts only; `linux-x64:20` and `linux-arm64:20`: one Node only
//   node scripts/test-prebuilds.mjs --present ... facts of what is there, rather than of all eight
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { buildConformance } from './build-conformance.mjs';
import { check, checkDigests, checkParts, countSums, finish, part, run as runWith } from './checks.mjs';
import { build } from './cmake.mjs';
import { need, TOOLS } from './debian.mjs';
import { nodeFor } from './nodes.mjs';
import { nameOf, targets } from './targets.mjs';
import { root, zigEnvironment, zigOptions } from './zig.mjs';

const VERSIONS = ['20', '22', '24', '26'];
/** Prebuilt binaries only, whatever was built in build/. */
const ENV = { PREBUILDS_ONLY: '1', HQQ_BACKEND: 'native' };

/** Runs a program to its end, with more in its environment. */
const run = (command, args, env = {}) => runWith(command, args, { env: { ...process.env, ...env } });

const fixture = (name) => path.join(root, 'test', 'fixtures', name);

/** An emulated processor is slow. The JavaScript backend, which is the measure there too, needs no tests of its own on it. */
const NATIVE = '--match=^(?!.*\\bjs\\b)';

let conformance;

/** All operations on one Node; `isas` are what it must offer there. */
async function testOperations(name, [command, ...args], isas, runIt = run) {
  conformance ??= await buildConformance();
  const { HQQ_BACKEND: _, ...env } = ENV; // the suite runs JavaScript as well
  const result = await runIt(command, [...args, conformance, ...isas], env);
  countSums(`${name}, all operations`, result);
  check(
    `${name} loads the prebuilt binary`,
    /prebuilds[\\/][a-z0-9]+-[a-z0-9]+[\\/]hqq[a-z.]*\.node: loaded/.test(result.stdout),
    result.all.slice(0, 500),
  );
}

/** Worker threads that are terminated in the middle of work, and processes that end there. */
async function testEnds(name, [command, ...args], runIt = run) {
  const cases = [
    [['workers.mjs', 'each', '20'], 0, 'alive 4096\n'],
    [['workers.mjs', 'all', '10'], 0, 'alive 4096\n'],
    [['exit.mjs', 'exit'], 7, ''],
    [['exit.mjs', 'throw'], 1, ''],
    [['exit.mjs', 'end'], 0, 'quantized 8388608\n'],
    [['exit.mjs', 'forget'], 0, 'same true\n'],
  ];
  for (const [[file, ...options], status, output] of cases) {
    const result = await runIt(command, [...args, '--expose-gc', fixture(file), ...options], ENV);
    const ok = result.status === status && result.stdout.replaceAll('\r', '') === output;
    check(
      `${name}: ${file} ${options.join(' ')}`,
      ok,
      `exit status ${result.status}, expected ${status}\n${result.all}`,
    );
  }
}

async function facts({ present }) {
  const env = { HQQ_REQUIRE_PREBUILDS: present ? 'linux-x64-glibc' : targets.map(nameOf).join(' ') };
  const vitest = path.join(root, 'node_modules', 'vitest', 'vitest.mjs');
  const files = ['test/prebuilds.test.ts', 'test/pack.test.ts'];
  const result = await run(process.execPath, [vitest, 'run', ...files, '--reporter=json'], env);
  const { numPassedTests = 0, numFailedTests = 1 } = parseOr(result.stdout, {});
  countSums('facts', { ...result, stdout: `${numPassedTests} passed, ${numFailedTests} failed\n` });
  const platforms = targets.filter(({ platform }) => platform === 'linux'); // nm of binutils reads ELF
  for (const { arch, libc } of platforms) {
    const folder = path.join(root, 'build-prebuilds', `linux-${arch}-${libc}`);
    if (!existsSync(folder)) continue;
    const { status, all } = await run(path.join(root, 'scripts', 'check-isa-symbols.sh'), [folder]);
    check(`build-prebuilds/linux-${arch}-${libc}: symbols of instruction sets are their own`, status === 0, all);
  }
}

function parseOr(text, fallback) {
  try {
    return JSON.parse(text);
  } catch {
    return fallback;
  }
}

async function host() {
  const name = `Node ${process.versions.node}, ${process.platform}-${process.arch}`;
  await testOperations(name, [process.execPath], []);
  await testEnds(name, [process.execPath]);
}

async function linuxX64({ versions }) {
  for (const version of versions) {
    const node = await nodeFor('linux-x64', version);
    await testOperations(`Node ${version}, linux-x64`, [node], []);
    await testEnds(`Node ${version}, linux-x64`, [node]);
  }
}

async function processors() {
  need(TOOLS.x64);
  const node = await nodeFor('linux-x64', '20');
  for (const [cpu, isas] of [
    ['Nehalem', ['scalar/plain']],
    ['Haswell', ['avx2/maddubs', 'scalar/plain']],
  ]) {
    await testOperations(`Node 20, linux-x64, ${cpu}`, ['qemu-x86_64-static', '-cpu', cpu, node], [NATIVE, ...isas]);
  }
}

async function linuxArm64({ versions }) {
  need(TOOLS.arm64);
  const emulator = (cpu) => ['qemu-aarch64-static', '-cpu', cpu, '-L', '/usr/aarch64-linux-gnu'];
  for (const version of versions) {
    const node = await nodeFor('linux-arm64', version);
    await testOperations(
      `Node ${version}, linux-arm64`,
      [...emulator('max'), node],
      [NATIVE, 'neon/i8mm', 'scalar/plain'],
    );
    if (version !== VERSIONS[0]) continue;
    for (const [cpu, dot] of [
      ['neoverse-n1', 'sdot'],
      ['cortex-a57', 'smull'],
    ])
      await testOperations(
        `Node ${version}, linux-arm64, ${cpu}`,
        [...emulator(cpu), node],
        [NATIVE, `neon/${dot}`, 'scalar/plain'],
      );
    await testEnds(`Node ${version}, linux-arm64`, [...emulator('max'), node]);
  }
}

async function win32X64() {
  need(TOOLS.wine);
  const node = await nodeFor('win32-x64', '20');
  const folder = mkdtempSync(path.join(tmpdir(), 'hqq-wine-'));
  const wineEnv = {
    WINEPREFIX: path.join(folder, 'prefix'),
    WINEARCH: 'win64',
    WINEDEBUG: '-all',
    NODE_SKIP_PLATFORM_CHECK: '1',
  };
  const wine = '/usr/lib/wine/wine64';
  // Node under Wine cannot write to pipes: its output goes to files.
  const runInWine = async (command, args, env) => {
    const files = ['out', 'err'].map((name) => path.join(folder, name));
    const [out, err] = files.map((file) => openSync(file, 'w'));
    const { status } = await runWith(command, args, {
      env: { ...process.env, ...wineEnv, ...env },
      stdio: ['ignore', out, err],
    });
    [out, err].forEach(closeSync);
    const [stdout, stderr] = files.map((file) => readFileSync(file, 'utf8'));
    return { status, stdout, all: stdout + stderr };
  };
  try {
    const { status, all } = await runInWine(wine, ['wineboot', '--init'], {});
    check('Wine starts', status === 0, all);
    await testOperations('Node 20, win32-x64', [wine, node], [], runInWine);
    await testEnds('Node 20, win32-x64', [wine, node], runInWine);
    // A program that has Node inside is not always called node.exe.
    const renamed = path.join(folder, 'renamed.exe');
    symlinkSync(node, renamed);
    const script = `require(${JSON.stringify(path.join(root, 'prebuilds', 'win32-x64', 'hqq.node'))}).open('scalar'); console.log('opened')`;
    const result = await runInWine(wine, [renamed, '-e', script], {});
    check('renamed.exe, win32-x64', result.stdout.includes('opened'), result.all);
  } finally {
    await run('/usr/lib/wine/wineserver', ['--kill'], wineEnv);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The core's test program for musl, linked statically: it needs nothing of the machine that it is run on. */
async function buildStatic(name, target) {
  const folder = path.join(root, 'build-prebuilds', name);
  const options = ['-DHQQ_BUILD_ADDON=OFF', '-DHQQ_BUILD_TESTS=ON', '-DCMAKE_EXE_LINKER_FLAGS=-static'];
  await build(folder, [...zigOptions(target), ...options], ['hqq_tests'], zigEnvironment());
  return path.join(folder, 'hqq_tests');
}

async function testCore(name, [command, ...args], isas, options = ['--quick']) {
  const { stdout } = await run(command, [...args, '--list']);
  const got = stdout.split('\n').filter(Boolean);
  if (isas) check(`${name} runs ${isas.join(', ')}`, got.join() === isas.join(), `it runs ${got.join(', ')}`);
  countSums(`${name}, the core's tests`, await run(command, [...args, ...options]));
  for (const isa of got.map((line) => line.split(' ')[0])) {
    checkDigests(`${name}, ${isa}`, (await run(command, [...args, '--digest', '--isa', isa])).stdout);
  }
}

async function musl() {
  const x64 = await buildStatic('tests-x64-musl', 'x86_64-linux-musl');
  await testCore('musl, x64', [x64], undefined, []);
  need(TOOLS.x64);
  // No emulation in an emulator: scripts/test-core.mjs says why.
  for (const [cpu, isas] of [
    ['Nehalem', ['scalar plain']],
    ['Haswell', ['avx2 maddubs', 'scalar plain']],
  ])
    await testCore(`musl, x64, ${cpu}`, ['qemu-x86_64-static', '-cpu', cpu, x64], isas, ['--quick', '--no-emulation']);
  const { stdout } = await run(x64, ['--list']);
  if (!stdout.includes('avx512')) await bochs(x64);
  need(TOOLS.arm64);
  const arm64 = await buildStatic('tests-arm64-musl', 'aarch64-linux-musl');
  await testCore('musl, arm64', ['qemu-aarch64-static', '-cpu', 'max', arm64], ['neon i8mm', 'scalar plain']);
  await testCore(
    'musl, arm64 without sdot',
    ['qemu-aarch64-static', '-cpu', 'cortex-a57', arm64],
    ['neon smull', 'scalar plain'],
  );
}

/** AVX-512 on a machine without it. Against AVX2: scripts/test-core.mjs says why. */
async function bochs(program) {
  const emulator = path.join(root, 'scripts', 'run-with-avx512.sh');
  const result = await run(emulator, [program, '--list', '--and', '--quick', '--isa', 'avx512', '--reference', 'avx2']);
  const isas = ['avx512 vnni', 'avx2 maddubs', 'scalar plain'];
  check(
    `musl, x64, Bochs runs ${isas.join(', ')}`,
    result.stdout.startsWith(`${isas.join('\n')}\n`),
    result.all.slice(0, 500),
  );
  countSums("musl, x64, AVX-512 under Bochs, the core's tests", result);
}

const PARTS = {
  facts,
  host,
  'linux-x64': linuxX64,
  processors,
  'linux-arm64': linuxArm64,
  'win32-x64': win32X64,
  musl,
};

async function main(args) {
  const present = args.includes('--present');
  const asked = args.filter((arg) => arg !== '--present').map((arg) => arg.split(':'));
  checkParts(
    asked.map(([name]) => name),
    PARTS,
  );
  const untold = asked.filter(([, version]) => version && !VERSIONS.includes(version));
  if (untold.length > 0)
    throw new Error(`Expected versions of Node among ${VERSIONS.join(', ')}, got ${untold[0][1]}.`);
  const all = Object.keys(PARTS).filter((each) => each !== 'host'); // of `linux-x64`
  for (const [name, version] of asked.length > 0 ? asked : all.map((each) => [each])) {
    await part(name, () => PARTS[name]({ present, versions: version ? [version] : VERSIONS }));
  }
  finish();
}

await main(process.argv.slice(2));
