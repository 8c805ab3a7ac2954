// What hqq writes, in llama.cpp: installs node-llama-cpp in interop/llama.cpp, and tests dist/ with it. Ends with "N passed, N failed".
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../interop/llama.cpp/', import.meta.url));
const run = (command, args, options = {}) => spawnSync(command, args, { cwd: folder, stdio: 'inherit', ...options });

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.log('Skipped: the llama.cpp that is tested with is built for Linux on x64.\n0 passed, 0 failed');
  process.exit(0);
}
// Not `npm ci`, which wants binaries of all systems in the lock file, some of which are not there for each version.
const quiet = ['--no-save', '--omit=optional', '--ignore-scripts', '--no-audit', '--no-fund'];
const installed = run('npm', ['install', ...quiet]);
if (installed.status !== 0) {
  console.log('0 passed, 1 failed');
  process.exit(1);
}
const { stdout, status } = run(process.execPath, ['--test', '--test-reporter=spec', 'gguf.test.mjs'], {
  ...{ stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' },
});
process.stdout.write(stdout);
const sum = (what) => Number(new RegExp(`^ℹ ${what} (\\d+)$`, 'm').exec(stdout)?.[1] ?? 0);
console.log(`${sum('pass')} passed, ${sum('fail')} failed`);
process.exit(status ?? 1);
