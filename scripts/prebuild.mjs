#!/usr/bin/env node
// Builds the prebuilt binaries of scripts/prebuilds.json into prebuilds/, all on one machine, and their checksums.
//
//   npm run prebuild                         all of them
//   npm run prebuild -- linux-x64-glibc ...  some: <platform>-<arch>, with -glibc or -musl on Linux
//   npm run prebuild -- --out folder ...     into folder/prebuilds/
//
// Needs CMake, Python 3 with pip, and PyPI: the compiler is Zig's, which brings the C libraries of all platforms along. The
// first build for a platform compiles those too, a minute or two each; they stay in .cache/.
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import prebuildify from 'prebuildify';
import { fileOf, nameOf, targets } from './targets.mjs';
import { needZig, root } from './zig.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: 'string', default: root } },
});
const out = path.resolve(values.out);
const prebuilds = path.join(out, 'prebuilds');

/** Builds one. prebuildify works in a folder of its own: in the project's, it would take what is in build/ for its own. */
async function build(target) {
  const started = performance.now();
  const cwd = path.join(root, 'build-prebuilds', nameOf(target));
  mkdirSync(cwd, { recursive: true });
  await promisify(prebuildify)({
    ...{ cwd, out, name: 'hqq', platform: target.platform, arch: target.arch, napi: true, strip: false },
    ...{ libc: target.libc ?? 'glibc', tagLibc: target.libc },
    cache: path.join(root, '.cache', 'prebuildify'),
    nodeGyp: fileURLToPath(new URL('prebuild-gyp.mjs', import.meta.url)),
  });
  const { size } = statSync(path.join(prebuilds, fileOf(target)));
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  console.log(`${path.relative(root, prebuilds)}/${fileOf(target)}: ${size} bytes, ${seconds} s`);
}

/** prebuilds/SHA256SUMS of every binary that is there, for `sha256sum --check`. */
function writeChecksums() {
  const files = readdirSync(prebuilds, { recursive: true }).filter((file) => file.endsWith('.node'));
  const lines = files.sort().map((file) => {
    const hash = createHash('sha256')
      .update(readFileSync(path.join(prebuilds, file)))
      .digest('hex');
    return `${hash}  ${file.replaceAll(path.sep, '/')}\n`;
  });
  writeFileSync(path.join(prebuilds, 'SHA256SUMS'), lines.join(''));
}

async function main(names) {
  const unknown = names.filter((name) => !targets.some((target) => nameOf(target) === name));
  if (unknown.length > 0)
    throw new Error(`Expected names among ${targets.map(nameOf).join(', ')}, got ${unknown.join(', ')}.`);
  const wanted = targets.filter((target) => names.length === 0 || names.includes(nameOf(target)));
  needZig();
  if (wanted.length === targets.length) rmSync(prebuilds, { recursive: true, force: true });
  for (const target of wanted) await build(target);
  writeChecksums();
}

await main(positionals);
