import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { type ElfFacts, readElf } from './support/binaries/elf.js';
import { readMachO } from './support/binaries/mach-o.js';
import { readPe } from './support/binaries/pe.js';

// What a binary needs of the machine that it comes to, read from its own bytes: of those in prebuilds/, and of the addon that
// was built here. `npm run prebuild` makes them; HQQ_REQUIRE_PREBUILDS names those that must be there.

interface Target {
  readonly platform: 'linux' | 'darwin' | 'win32';
  readonly arch: 'x64' | 'arm64';
  readonly libc?: 'glibc' | 'musl';
}

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FOLDER = join(ROOT, 'prebuilds');
const TARGETS = JSON.parse(readFileSync(join(ROOT, 'scripts', 'prebuilds.json'), 'utf8')) as Target[];
const nameOf = ({ platform, arch, libc }: Target) => [platform, arch, ...(libc ? [libc] : [])].join('-');
const fileOf = ({ platform, arch, libc }: Target) =>
  `${platform}-${arch}/${['hqq', ...(libc ? [libc] : []), 'node'].join('.')}`;
const present = TARGETS.filter((target) => existsSync(join(FOLDER, fileOf(target))));
const of = (platform: string) =>
  present.filter((target) => target.platform === platform).map((t) => [nameOf(t), t] as const);
const read = (target: Target) => readFileSync(join(FOLDER, fileOf(target)));

const EXPORTS = ['napi_register_module_v1', 'node_api_module_get_api_version_v1'];
const isNodeApi = (name: string) => /^_?(napi|node_api)_/.test(name);

test('binaries that are demanded are there, and nothing else is', () => {
  const demanded = (process.env.HQQ_REQUIRE_PREBUILDS ?? '').split(' ').filter(Boolean);
  expect(present.map(nameOf)).toEqual(expect.arrayContaining(demanded));
  const files = existsSync(FOLDER) ? readdirSync(FOLDER, { recursive: true, encoding: 'utf8' }) : [];
  const known = [...TARGETS.map(fileOf), ...TARGETS.map((t) => `${t.platform}-${t.arch}`), 'SHA256SUMS'];
  expect(known).toEqual(expect.arrayContaining(files.map((file) => file.replaceAll('\\', '/'))));
});

test('eight binaries are for eight systems, and node-gyp-build finds each where it is', () => {
  expect(TARGETS.map(nameOf).sort()).toEqual([
    ...['darwin-arm64', 'darwin-x64'],
    ...['linux-arm64-glibc', 'linux-arm64-musl', 'linux-x64-glibc', 'linux-x64-musl'],
    ...['win32-arm64', 'win32-x64'],
  ]);
  const script = 'process.stdout.write(require("node-gyp-build").path(process.argv[1]))';
  for (const target of present) {
    const { platform, arch, libc } = target;
    const asIf = { npm_config_platform: platform, npm_config_arch: arch, PREBUILDS_ONLY: '1', LIBC: libc ?? '' };
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', script, ROOT], {
      encoding: 'utf8',
      cwd: ROOT,
      env: { ...process.env, ...asIf },
    });
    expect(stdout || stderr).toBe(join(FOLDER, fileOf(target)));
  }
});

test('SHA256SUMS has the sum of every binary', () => {
  const sums = present.map(
    (target) => `${createHash('sha256').update(read(target)).digest('hex')}  ${fileOf(target)}\n`,
  );
  const file = join(FOLDER, 'SHA256SUMS');
  const lines = existsSync(file) ? readFileSync(file, 'utf8').split(/(?<=\n)/) : [];
  expect(lines.sort()).toEqual(sums.sort());
});

test.each(present.map((target) => [nameOf(target), target] as const))('%s is below 2.2 MB', (_, target) => {
  expect(statSync(join(FOLDER, fileOf(target))).size).toBeLessThan(2.2e6);
});

const GLIBC = {
  libraries: /^(lib(c|m)\.so\.6|libpthread\.so\.0|libdl\.so\.2|ld-linux-(x86-64\.so\.2|aarch64\.so\.1))$/,
  newest: [2, 17],
};

/** What every shared object of ours keeps to. */
function expectLeanElf(facts: ElfFacts): void {
  expect([...facts.exports].sort()).toEqual(EXPORTS);
  expect(facts).toMatchObject({ noDelete: true, executableStack: false, runPath: false });
}

/** What the libraries of a system may be asked for: nothing that has no version there, but for Node-API itself. */
function expectGlibc(facts: ElfFacts, newest: readonly number[]): void {
  for (const library of facts.needed) expect(library).toMatch(GLIBC.libraries);
  const versions = facts.versions.map(
    (text) => /GLIBC_(\d+)\.(\d+)/.exec(text)!.slice(1).map(Number) as [number, number],
  );
  expect(versions.length).toBeGreaterThan(0);
  for (const [major, minor] of versions)
    expect(major * 1000 + minor).toBeLessThanOrEqual(newest[0]! * 1000 + newest[1]!);
  expect(facts.imports.filter((name) => !isNodeApi(name) && !name.includes('@GLIBC_'))).toEqual([]);
}

describe.each(of('linux'))('%s', (_, target) => {
  const facts = readElf(read(target));

  test('is for its machine, exports two functions, stays loaded, and is stripped', () => {
    expect(facts.machine).toBe({ x64: 62, arm64: 183 }[target.arch]);
    expectLeanElf(facts);
    expect(facts.sections.filter((name) => /^\.(symtab|debug)/.test(name))).toEqual([]);
  });

  test('needs the C library and nothing else', () => {
    expect(facts.imports.filter(isNodeApi).length).toBeGreaterThan(20);
    if (target.libc === 'glibc') {
      expectGlibc(facts, GLIBC.newest);
    } else {
      expect(facts.needed).toEqual(['libc.so']);
      expect(facts.versions).toEqual([]);
    }
  });
});

describe.each(of('darwin'))('%s', (_, target) => {
  const facts = readMachO(read(target));

  test('is for its machine and macOS 11 and newer, and needs the system library and nothing else', () => {
    expect(facts).toMatchObject({
      cpu: { x64: 0x01000007, arm64: 0x0100000c }[target.arch],
      platform: 1,
      minimum: '11.0',
    });
    expect([6, 8]).toContain(facts.fileType); // a library, or a bundle
    expect(facts.libraries).toEqual(['/usr/lib/libSystem.B.dylib']);
    expect(facts.installName).toBe('@rpath/hqq.node');
    expect(facts.imports.anywhere.filter(isNodeApi).length).toBeGreaterThan(20);
    expect(facts.imports.anywhere.filter((name) => !isNodeApi(name))).toEqual([]);
    expect(facts.imports.fromLibraries.filter(isNodeApi)).toEqual([]);
    expect(facts.imports.fromLibraries).toContain('_malloc');
  });

  test('exports two functions, is stripped, and is signed where the system demands it', () => {
    const OF_THE_LINKER = ['___dso_handle', '__mh_dylib_header']; // where the file begins; Zig's linker cannot hide them
    expect([...facts.exports].sort()).toEqual([...OF_THE_LINKER, ...EXPORTS.map((name) => `_${name}`)]);
    // Nothing of ours: on arm64 that linker goes to every function that it imports by a thunk, and names it.
    const imported = [...facts.imports.anywhere, ...facts.imports.fromLibraries];
    const thunks = target.arch === 'arm64' ? imported.map((name) => `${name}__thunk`) : [];
    expect(facts.localSymbols.filter((name) => !thunks.includes(name))).toEqual([]);
    if (target.arch === 'arm64') expect(facts.signature).toEqual({ adHoc: true, intact: true });
  });
});

describe.each(of('win32'))('%s', (_, target) => {
  const facts = readPe(read(target));

  test('is for its machine, exports two functions, and is stripped', () => {
    expect(facts).toMatchObject({
      machine: { x64: 0x8664, arm64: 0xaa64 }[target.arch],
      isLibrary: true,
      hardened: true,
      symbols: 0,
    });
    expect([...facts.exports].sort()).toEqual(EXPORTS);
    expect(facts.sections.filter((name) => name.startsWith('.debug') || name.startsWith('/'))).toEqual([]);
  });

  test("needs Windows' own libraries, and finds Node in whatever program loads it", () => {
    expect(facts.delayed).toBe(false);
    for (const library of facts.libraries)
      expect(library).toMatch(/^(kernel32|ntdll|advapi32|bcrypt|api-ms-win-crt-[a-z]+-l1-1-0)\.dll$/i);
    expect(facts.libraries.length).toBeGreaterThan(0);
  });
});

// The addon that this machine built has to keep to most of it; and it shows that the reader finds what there is to find.
test.runIf(process.platform === 'linux' && existsSync(join(ROOT, 'build/Release/hqq.node')))(
  'the addon that was built here',
  () => {
    const facts = readElf(readFileSync(join(ROOT, 'build/Release/hqq.node')));
    expectLeanElf(facts);
    expect(facts.imports.filter(isNodeApi).length).toBeGreaterThan(20);
    const node = readElf(readFileSync(process.execPath));
    expect(node.exports).toContain('napi_create_object');
    expect(node.exports.length).toBeGreaterThan(1000);
  },
);
