import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { OPTIONS } from '../lib/matrix/options.js';
import { scratchFolder } from './support/scratch.js';

// What the README shows, run as it stands there: on the built package, and with the model that ships with the repository in the
// place of the reader's own.

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');
const MODEL = 'Llama-3.2-1B';
const posix = process.platform !== 'win32';
const run = promisify(execFile);

const work = scratchFolder('readme');
mkdirSync(join(work, 'node_modules', '.bin'), { recursive: true });
symlinkSync(ROOT, join(work, 'node_modules', 'hqq'), 'junction');
if (posix) symlinkSync(join(ROOT, 'dist', 'cli.mjs'), join(work, 'node_modules', '.bin', 'hqq'));
cpSync(join(ROOT, 'examples', 'models', 'llama-2.3m-books'), join(work, MODEL), { recursive: true });

/** The blocks of code in a language. */
const blocks = (language: string, text = README) =>
  [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].filter((match) => match[1] === language).map((match) => match[2]!);

test('it is short', () => {
  expect(README.split('\n').length).toBeLessThanOrEqual(100);
  expect(blocks('js')).toHaveLength(1);
  expect(blocks('console')).toHaveLength(1);
});

test('its commands have the package that they need', () => {
  const installed = README.slice(README.indexOf('## Install'), README.indexOf('## Three commands'));
  expect(installed).toMatch(/^ {4}npm install @huggingface\/tokenizers /m);
});

test('docs/library.md has every option of a matrix, with its default', () => {
  const text = readFileSync(join(ROOT, 'docs', 'library.md'), 'utf8').split('## Options of a matrix')[1]!;
  const cells = text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').map((cell) => cell.trim()));
  const listed = cells.flatMap(([, names, defaults]) => {
    const values = defaults!.replaceAll(/ \(.*?\)|`/g, '').split(', ');
    return [...names!.matchAll(/`(\w+)`/g)].map((match, i) => [match[1]!, values[i] ?? values[0]!]);
  });
  const known = Object.entries(OPTIONS).map(([name, option]) => [name, String(option.default)]);
  expect(Object.fromEntries(listed)).toEqual(Object.fromEntries(known));
});

test('its code runs', async () => {
  const file = join(work, 'readme.mjs');
  const [code] = blocks('js');
  writeFileSync(file, `${code}\nif (y.length !== layer.outFeatures) throw new Error('no product');\n`);
  const { stdout } = await run(process.execPath, [file], { cwd: work });
  expect(stdout).toMatch(/^4\.5 bits per weight, error 0\.082\d+\n$/);
  rmSync(join(work, `${MODEL}-4bit`), { recursive: true });
});

test('the code of docs/runtime.md runs', async () => {
  const codes = blocks('js', readFileSync(join(ROOT, 'docs', 'runtime.md'), 'utf8'));
  const shown = [
    ['plan.version, Object.keys(plan.overrides).length', '1 21\n'],
    ["squares.size, logits.length, squares.get('lm_head')", '21 2048 undefined\n'],
    ['texts.length, texts[0].length / source.config.hiddenSize', '1 3\n'],
    ['meanSquares.size, q.nbits', '22 3\n'],
  ] as const;
  expect(codes).toHaveLength(shown.length);
  for (const [i, [values, expected]] of shown.entries()) {
    const file = join(work, `runtime-${i}.mjs`);
    writeFileSync(file, `${codes[i]}\nconsole.log(${values});\n`);
    const { stdout } = await run(process.execPath, [file], { cwd: work });
    expect(stdout).toBe(expected);
  }
});

test.runIf(posix)('its commands run, one after the other', async () => {
  const commands = blocks('console')[0]!
    .trim()
    .split('\n')
    .map((line) => /^\$ (.*)$/.exec(line)![1]!);
  expect(commands).toHaveLength(3);
  for (const command of commands) {
    const { stdout } = await run('sh', ['-c', command], { cwd: work });
    expect(stdout, command).not.toBe('');
  }
});

test('its links lead to files of the package', () => {
  const links = [...README.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map((match) => match[1]!);
  expect(links.length).toBeGreaterThan(10);
  expect(links.filter((link) => !existsSync(join(ROOT, link)))).toEqual([]);
});
