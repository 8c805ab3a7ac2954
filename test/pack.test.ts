import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, test } from 'vitest';
import { scratchFolder } from './support/scratch.js';

// What `npm publish` would send: what users need, and nothing else.

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const work = scratchFolder('pack');
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<string, unknown>;

/** Everything that may be in the package, with what it is for. */
const KINDS: Readonly<Record<string, RegExp>> = {
  manifest: /^package\.json$/,
  licences: /^(LICENSE|NOTICE)$/,
  guides: /^((README|CHANGELOG|CONTRIBUTING)\.md|docs\/[a-z-]+\.(md|svg))$/,
  code: /^dist\/[\w-]+\.(mjs|cjs|js)$/,
  types: /^(binding\.d\.ts|dist\/[\w-]+\.d\.(mts|cts|ts))$/,
  binaries: /^prebuilds\/((linux-(x64|arm64)\/hqq\.(glibc|musl)|(darwin|win32)-(x64|arm64)\/hqq)\.node|SHA256SUMS)$/,
  'sources of the addon':
    /^(CMakeLists\.txt|scripts\/build-native\.cjs|native\/(addon|core|isa|kernels(\/(solve|blocks|tune))?|simd)\/[\w-]+\.(cc|h|map))$/,
};

/** `npm pack`, without writing. */
function pack(cwd: string, options: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { HQQ_PACK_WITHOUT_PREBUILDS: _, ...inherited } = process.env;
  return spawnSync('npm', ['pack', '--dry-run', '--json', ...options], {
    cwd,
    encoding: 'utf8',
    env: { ...inherited, ...env },
    shell: process.platform === 'win32',
  });
}

let packed: { size: number; files: { path: string; size: number }[] };
let paths: string[];

beforeAll(() => {
  const { status, stdout, stderr } = pack(ROOT, ['--loglevel=error'], { HQQ_PACK_WITHOUT_PREBUILDS: '1' });
  if (status !== 0) throw new Error(`npm pack failed: ${stderr}`);
  [packed] = JSON.parse(stdout) as [typeof packed];
  paths = packed.files.map(({ path }) => path);
});

test('every file of the package is of a kind that users need', () => {
  expect(paths.filter((path) => !Object.values(KINDS).some((kind) => kind.test(path)))).toEqual([]);
});

test('every kind is there', () => {
  const empty = Object.entries(KINDS).filter(([, kind]) => !paths.some((path) => kind.test(path)));
  // A checkout has binaries once `npm run prebuild` has made them.
  const expected = existsSync(join(ROOT, 'prebuilds', 'SHA256SUMS')) ? [] : ['binaries'];
  expect(empty.map(([name]) => name)).toEqual(expected);
});

test('whatever package.json points at is there', () => {
  const targets: string[] = [];
  const collect = (value: unknown): void => {
    if (typeof value === 'string' && value.startsWith('./')) targets.push(value.slice(2));
    else if (typeof value === 'object' && value !== null) Object.values(value).forEach(collect);
  };
  for (const field of ['main', 'types', 'exports', 'bin', 'module', 'browser']) collect(manifest[field]);
  expect(targets.length).toBeGreaterThan(8);
  expect(targets.filter((path) => !paths.includes(path))).toEqual([]);
});

test('nothing is run where it is installed, nor is npm tempted to warn of it', () => {
  const { scripts } = manifest as { scripts: Record<string, string> };
  for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) expect(scripts).not.toHaveProperty(name);
  expect(paths).not.toContain('binding.gyp'); // npm would run node-gyp for it
});

test('is not packed without its binaries, but where that is asked for', () => {
  const scripts = ['check-prebuilds.mjs', 'targets.mjs', 'prebuilds.json'].map((name) => join('scripts', name));
  for (const name of ['package.json', ...scripts]) cpSync(join(ROOT, name), join(work, name));
  writeFileSync(join(work, 'scripts', 'build-dist.mjs'), '');
  const targets = JSON.parse(readFileSync(join(ROOT, 'scripts', 'prebuilds.json'), 'utf8')) as {
    platform: string;
    arch: string;
    libc?: string;
  }[];
  const expectRefused = (got: string) => {
    const { status, stderr } = pack(work, []);
    expect(stderr).toContain(`hqq: Expected prebuilds/ to hold the 8 binaries of the package, got ${got}: `);
    expect(stderr).toContain('HQQ_PACK_WITHOUT_PREBUILDS=1');
    expect(status).not.toBe(0);
  };

  expectRefused('none');
  expect(pack(work, [], { HQQ_PACK_WITHOUT_PREBUILDS: '1' }).status).toBe(0);
  for (const [i, { platform, arch, libc }] of targets.entries()) {
    if (i === targets.length - 1) expectRefused(`none for ${[platform, arch, libc].filter(Boolean).join('-')}`);
    const folder = join(work, 'prebuilds', `${platform}-${arch}`);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, ['hqq', libc, 'node'].filter(Boolean).join('.')), '');
  }
  expect(pack(work, []).status).toBe(0);
});

test('licences and the list of what is linked in are there', () => {
  for (const path of ['LICENSE', 'NOTICE', 'README.md', 'CHANGELOG.md']) expect(paths).toContain(path);
});

test('the sources are enough to build the addon', () => {
  const missing: string[] = [];
  for (const path of paths.filter((name) => name.startsWith('native/') && !name.endsWith('.map'))) {
    for (const [, included] of readFileSync(join(ROOT, path), 'utf8').matchAll(/^#include "(.+)"$/gm)) {
      const target = join(path, '..', included!).replaceAll('\\', '/');
      if (included !== 'node_api_imports.inc' && !paths.includes(target)) missing.push(`${path}: ${included}`);
    }
  }
  expect(missing).toEqual([]);
});

test('the package is below 1.5 MB, and 0.9 MB for each binary', () => {
  const binaries = paths.filter((path) => path.endsWith('.node')).length;
  expect(packed.size).toBeLessThan(1.5e6 + 0.9e6 * binaries);
  expect(packed.size).toBeGreaterThan(1e5);
});
