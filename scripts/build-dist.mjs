#!/usr/bin/env node
// Builds dist/, as tsdown.config.ts says, where it is not whole or older than what it is made from.
//
// With tsdown's function: its command first tells everybody on Node 20, which this package supports, to leave it.
import { existsSync, readdirSync, readFileSync, statSync, utimesSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const SOURCES = ['lib', 'binding.d.ts', 'tsdown.config.ts', 'tsconfig.json', 'package.json', 'package-lock.json'];

/** A folder and what is in it, or a file. Folders count: a file that was removed leaves no other trace. */
function withContents(name) {
  const file = path.join(root, name);
  if (!existsSync(file) || !statSync(file).isDirectory()) return existsSync(file) ? [file] : [];
  return [file, ...readdirSync(file, { recursive: true }).map((inner) => path.join(file, inner))];
}

const times = (names) => names.flatMap(withContents).map((file) => statSync(file).mtimeMs);

/** The files of dist/ that package.json names. */
function promised() {
  const { main, types, exports, bin } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  return JSON.stringify([main, types, exports, bin]).match(/(?<=")\.\/dist\/[^"]+/g);
}

const sourcesTime = () => Math.max(...times(SOURCES));

function isFresh() {
  if (!promised().every((file) => existsSync(path.join(root, file)))) return false;
  return Math.min(...times(['dist']).slice(1)) > sourcesTime();
}

if (!isFresh()) {
  const { build } = await import('tsdown');
  const [started, time] = [Date.now(), new Date(sourcesTime() + 2)];
  await build({ cwd: root, logLevel: 'warn' });
  // As old as the sources that were read, but for fractions of a millisecond: what was changed since then is newer.
  for (const name of readdirSync(path.join(root, 'dist'))) utimesSync(path.join(root, 'dist', name), time, time);
  console.error(`hqq: built dist/ in ${((Date.now() - started) / 1000).toFixed(1)} s.`);
}
