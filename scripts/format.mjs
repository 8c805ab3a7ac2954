// Formats the tree, and lints what Biome reads: TypeScript and JavaScript by biome.jsonc, C++ by .clang-format.
//
//   node scripts/format.mjs            writes
//   node scripts/format.mjs --check    says what it would change, and exits with status 1 where that is anything
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { needPackage, root } from './pypi.mjs';

const check = process.argv.includes('--check');

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (error) throw error;
  return status === 0;
}

const biome = path.join(root, 'node_modules', '@biomejs', 'biome', 'bin', 'biome');
const scripts = run(process.execPath, [biome, 'check', ...(check ? [] : ['--write']), '--error-on-warnings', '.']);

const program = path.join(needPackage('clang-format'), 'clang_format', 'data', 'bin', 'clang-format');
const sources = readdirSync(path.join(root, 'native'), { recursive: true, encoding: 'utf8' })
  .filter((name) => /\.(cc|h)$/.test(name))
  .map((name) => path.join('native', name));
const native = run(program, [...(check ? ['--dry-run', '-Werror'] : ['-i']), ...sources]);

process.exitCode = scripts && native ? 0 : 1;
