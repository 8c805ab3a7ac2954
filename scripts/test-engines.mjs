// Folders of engines' formats that hqq writes, in transformers with compressed-tensors and torchao: these come from PyPI into .cache/
// (scripts/engines-requirements.txt, 0.6 GB), and dist/ is tested with them. Ends with "N passed, N failed". Where they cannot be had, it says so, and
// nothing has failed.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { needPackage, root } from './pypi.mjs';

const INSTALL_SECONDS = 240;
const CHECK_SECONDS = 400;
/** Of the matrix of interop/python/check.mjs: families, experts and a stack of them, zeros, bits, groups, mixed ones, and torchao. */
const CASES =
  '^(llama-tied, 4 bits|qwen2, 4 bits, integer|mixtral, 4|qwen3-moe-stacks|[38] bits$|groups of 128|mixed bits|torchao, 4 bits)';

const of = (...names) => path.join(root, 'interop/python', ...names);
const end = (passed, failed) => {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
};
const skip = (why) => {
  console.log(`Skipped: ${why}`);
  end(0, 0);
};

const python = spawnSync('python3', ['-c', 'import sys; print(*sys.version_info[:2])'], { encoding: 'utf8' });
if (process.platform !== 'linux' || process.arch !== 'x64' || python.stdout?.trim() !== '3 11')
  skip('the engines are those of Python 3.11 on Linux (x64).');

/** What torch of PyPI is linked to and a processor does not need. */
function standIn(folder) {
  const { status } = spawnSync('python3', [of('without_cuda.py'), path.join(folder, 'torch/lib')], {
    stdio: 'inherit',
  });
  if (status !== 0) end(0, 1);
}

let folder;
try {
  folder = needPackage('engines', standIn, INSTALL_SECONDS);
} catch (error) {
  skip(`the engines could not be fetched. ${error.message}`);
}
const check = spawnSync(process.execPath, [of('check.mjs'), 'python3', CASES], {
  ...{ stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', timeout: CHECK_SECONDS * 1000 },
  env: { ...process.env, PYTHONPATH: folder, OMP_NUM_THREADS: '2' },
});
process.stdout.write(check.stdout);
if (check.error?.code === 'ETIMEDOUT') skip(`the engines took more than ${CHECK_SECONDS} s.`);
const sum = (what) =>
  [...check.stdout.matchAll(new RegExp(`(\\d+) ${what}`, 'g'))].reduce((all, [, count]) => all + Number(count), 0);
const passed = sum('passed');
end(passed, Math.max(sum('failed'), check.status === 0 && passed > 0 ? 0 : 1));
