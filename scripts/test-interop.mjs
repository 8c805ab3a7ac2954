// What hqq writes, in llama.cpp, onnxruntime and transformers.js, and what it serves, to the AI SDK and LangChain: installs them in folders of
// interop/, and tests dist/ with them. Ends with "N passed, N failed". `node scripts/test-interop.mjs onnxruntime` tests with one of them.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

// Not `npm ci`, which wants binaries of all systems in the lock file, some of which are not there for each version. transformers.js needs
// what sharp has as optional.
const INSTALL = ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund'];
const ENGINES = {
  'llama.cpp': { tests: 'gguf.test.mjs', install: [...INSTALL, '--omit=optional'] },
  onnxruntime: { tests: 'onnx.test.mjs', install: INSTALL },
  openai: { tests: 'clients.test.mjs', install: INSTALL },
};

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.log('Skipped: the engines that are tested with are built for Linux on x64.\n0 passed, 0 failed');
  process.exit(0);
}
const chosen = process.argv[2] === undefined ? Object.keys(ENGINES) : [process.argv[2]];
let [passed, failed] = [0, 0];
for (const name of chosen) {
  const folder = fileURLToPath(new URL(`../interop/${name}/`, import.meta.url));
  const run = (command, args, options = {}) => spawnSync(command, args, { cwd: folder, stdio: 'inherit', ...options });
  const { tests, install } = ENGINES[name];
  if (run('npm', install).status !== 0) {
    failed++;
    continue;
  }
  const { stdout, status } = run(process.execPath, ['--test', '--test-reporter=spec', tests], {
    ...{ stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' },
  });
  process.stdout.write(stdout);
  const sum = (what) => Number(new RegExp(`^ℹ ${what} (\\d+)$`, 'm').exec(stdout)?.[1] ?? 0);
  passed += sum('pass');
  failed += Math.max(sum('fail'), status === 0 ? 0 : 1);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
