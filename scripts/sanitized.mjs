// The build with AddressSanitizer and UndefinedBehaviorSanitizer, of which the core's tests, the addon and the fuzzer share the
// objects. With clang: it has libFuzzer, and its AddressSanitizer sees loads and stores under a mask.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { build } from './cmake.mjs';
import { aptInstall, need, TOOLS } from './debian.mjs';
import { root } from './pypi.mjs';

export const sanitizedFolder = path.join(root, 'build-core', 'sanitized');

/** clang++ may be there without its runtimes, which are in a package of their own. */
function needClang() {
  need(TOOLS.clang);
  const works = () => {
    const test = ['-x', 'c++', '-fsanitize=fuzzer,address', '-', '-o', '/dev/null'];
    const input = 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }';
    return spawnSync('clang++', test, { input }).status === 0;
  };
  if (!works()) aptInstall(['libclang-rt-dev']);
  if (!works()) throw new Error('Expected clang++ with libFuzzer. Debian: apt-get install clang libclang-rt-dev');
}

/** Builds `hqq_tests`, `hqq_fuzz_packed` or `hqq`, the addon. Returns its path. */
export async function buildSanitized(target) {
  needClang();
  const addons = path.join(sanitizedFolder, 'build', 'Release'); // where node-gyp-build looks below a folder
  const options = ['ADDON', 'TESTS', 'FUZZERS'].map((what) => `-DHQQ_BUILD_${what}=ON`);
  options.push('-DCMAKE_CXX_COMPILER=clang++', '-DCMAKE_BUILD_TYPE=RelWithDebInfo', '-DHQQ_OPENMP=OFF');
  options.push('-DHQQ_SANITIZE=address,undefined', `-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=${addons}`);
  await build(sanitizedFolder, options, [target]);
  return target === 'hqq' ? path.join(addons, 'hqq.node') : path.join(sanitizedFolder, target);
}

/** The runtime of AddressSanitizer as a library, for a program that is not made with it and loads what is. */
export function sanitizerRuntime() {
  const arch = { x64: 'x86_64', arm64: 'aarch64' }[process.arch];
  const name = `-print-file-name=libclang_rt.asan-${arch}.so`;
  return spawnSync('clang++', [name], { encoding: 'utf8' }).stdout.trim();
}
