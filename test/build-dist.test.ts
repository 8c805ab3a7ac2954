import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { scratchFolder } from './support/scratch.js';

// scripts/build-dist.mjs builds what is not fresh, and nothing else: with a stand-in for tsdown, which writes three files.

const work = scratchFolder('build-dist');
const path = (...names: string[]) => join(work, ...names);

for (const folder of ['scripts', 'lib/matrix', 'node_modules/tsdown']) mkdirSync(path(folder), { recursive: true });
const script = fileURLToPath(new URL('../scripts/build-dist.mjs', import.meta.url));
cpSync(script, path('scripts', 'build-dist.mjs'));
writeFileSync(
  path('package.json'),
  '{ "main": "./dist/index.cjs", "types": "./dist/index.d.cts", "exports": { ".": "./dist/index.cjs" }, "bin": { "hqq": "./dist/cli.mjs" } }',
);
writeFileSync(path('lib', 'index.ts'), '');
writeFileSync(path('lib', 'matrix', 'weight.ts'), '');
writeFileSync(path('node_modules', 'tsdown', 'package.json'), '{ "type": "module", "exports": "./index.js" }');
writeFileSync(
  path('node_modules', 'tsdown', 'index.js'),
  `import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
  export function build({ cwd }) {
    if (existsSync(cwd + '/broken')) throw new Error('it does not build');
    mkdirSync(cwd + '/dist', { recursive: true });
    for (const name of ['index.cjs', 'index.d.cts', 'cli.mjs']) writeFileSync(cwd + '/dist/' + name, '');
    if (existsSync(cwd + '/changing')) writeFileSync(cwd + '/lib/index.ts', '');
  }`,
);

function builds(): boolean {
  const { status, stderr } = spawnSync(process.execPath, [path('scripts', 'build-dist.mjs')], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  expect(existsSync(path('dist', 'cli.mjs'))).toBe(true);
  return /built dist\//.test(stderr);
}

/** As if a file were changed now. */
const touch = (file: string) => utimesSync(file, new Date(), new Date());

test('builds what is not there, and once', () => {
  expect(builds()).toBe(true);
  expect(builds()).toBe(false);
});

test.each([
  ['a source changes', () => touch(path('lib', 'matrix', 'weight.ts'))],
  ['a source comes', () => writeFileSync(path('lib', 'matrix', 'new.ts'), '')],
  ['a source goes', () => rmSync(path('lib', 'matrix', 'new.ts'))],
  ['package.json changes', () => touch(path('package.json'))],
  ['a file of dist is missing', () => rmSync(path('dist', 'index.d.cts'))],
])('builds where %s', (_, change) => {
  expect(builds()).toBe(false);
  change();
  expect(builds()).toBe(true);
  expect(builds()).toBe(false);
});

test('what changes during a build is built the next time', () => {
  writeFileSync(path('changing'), '');
  touch(path('lib', 'index.ts'));
  expect(builds()).toBe(true);
  rmSync(path('changing'));
  expect(builds()).toBe(true);
  expect(builds()).toBe(false);
});

test('a build that fails is told, and is not taken for done', () => {
  writeFileSync(path('broken'), '');
  touch(path('lib', 'index.ts'));
  const before = statSync(path('dist', 'cli.mjs')).mtimeMs;
  const { status, stderr } = spawnSync(process.execPath, [path('scripts', 'build-dist.mjs')], { encoding: 'utf8' });
  expect([status, stderr]).toEqual([1, expect.stringContaining('it does not build')]);
  expect(statSync(path('dist', 'cli.mjs')).mtimeMs).toBe(before);
  rmSync(path('broken'));
  expect(builds()).toBe(true);
});
