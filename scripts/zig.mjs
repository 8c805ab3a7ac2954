// Zig's C++ compiler, from PyPI: one package that builds for every platform.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { cache, needPackage, root } from './pypi.mjs';

export { root };

/** What CMake wants as single programs, and Zig has as subcommands. */
const SUBCOMMANDS = ['ar', 'ranlib'];

/** The folder of the compiler's programs, which is downloaded where it is not there. */
export function needZig() {
  const folder = needPackage('zig', (partial) => {
    for (const name of SUBCOMMANDS) {
      const script = `#!/bin/sh\nexec "\${0%/*}/zig" ${name} "$@"\n`;
      writeFileSync(path.join(partial, 'ziglang', `zig-${name}`), script, { mode: 0o755 });
    }
  });
  return path.join(folder, 'ziglang');
}

/** The environment of builds: what Zig compiles once for each platform (the C library, libc++) stays in the project's cache. */
export function zigEnvironment() {
  const folder = path.join(cache, 'zig-objects');
  return { ...process.env, ZIG_GLOBAL_CACHE_DIR: folder, ZIG_LOCAL_CACHE_DIR: folder };
}

/** CMake's options of a build with Zig for `target`. */
export function zigOptions(target) {
  return [
    `-DCMAKE_TOOLCHAIN_FILE=${path.join(root, 'cmake', 'toolchain-zig.cmake')}`,
    `-DHQQ_ZIG=${needZig()}`,
    `-DHQQ_ZIG_TARGET=${target}`,
    '-DHQQ_OPENMP=OFF', // Zig has no OpenMP, and threads of our own are as fast: docs/architecture.md
  ];
}
