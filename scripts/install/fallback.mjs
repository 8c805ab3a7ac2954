// Machines that the binary is not for: what the package does there, and what it says.
import { copyFileSync, existsSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { check, lastJson, run } from '../checks.mjs';

/** JavaScript computes, and one warning says what was tried (`tried`) and what helps (`fix`). */
function isFallback(seen, tried, fix) {
  const [warning] = seen.warnings ?? [];
  const told = `${warning?.message} ${warning?.detail}`;
  return (
    seen.backend?.name === 'js' &&
    seen.same &&
    seen.warnings.length === 1 &&
    warning.code === 'HQQ_JS_BACKEND' &&
    tried.test(told) &&
    fix.test(told)
  );
}

export async function fallback({ project, env, binary }) {
  const file = path.join(project, 'node_modules', 'hqq', binary);
  const kept = `${file}.kept`;
  const use = async (more = {}, script = 'esm.mjs') =>
    lastJson(await run('node', [script], { cwd: project, env: { ...env, ...more } }));
  const doctor = async (more = {}) => {
    const { status, stdout } = await run('node', ['node_modules/hqq/dist/cli.mjs', 'doctor'], {
      cwd: project,
      env: { ...env, ...more },
    });
    return { status, stdout };
  };
  /** The three things that must hold wherever there is no binary. */
  const expectFallback = async (what, more, tried, fix) => {
    const seen = await use(more);
    check(
      `${what}: JavaScript, the same bytes, one warning with the reason and the remedy`,
      isFallback(seen, tried, fix),
      seen,
    );
    const demanded = await use({ ...more, HQQ_BACKEND: 'native' });
    const { error, warnings } = demanded;
    check(
      `${what}: an error where HQQ_BACKEND=native`,
      error?.code === 'ERR_BACKEND_UNAVAILABLE' &&
        tried.test(error.message) &&
        fix.test(error.message) &&
        warnings.length === 0,
      demanded,
    );
    const report = await doctor(more);
    const whole = /backend +JavaScript/.test(report.stdout) && tried.test(report.stdout) && fix.test(report.stdout);
    check(
      `${what}: the doctor tells it`,
      report.status === 0 && whole && /features +\S/.test(report.stdout),
      report.stdout,
    );
  };

  await expectFallback(
    'a platform without a binary',
    { npm_config_platform: 'sunos', npm_config_arch: 'sparc' },
    /prebuilds[/\\]sunos-sparc/,
    /hqq has binaries for .*, not for sunos-sparc/,
  );
  await expectFallback(
    'a C library without a binary',
    { LIBC: 'uclibc' },
    /It holds .*hqq.*: not for this system/,
    /build it here/,
  );

  renameSync(file, kept);
  const others = path.dirname(file);
  const hidden = readdirSync(others).filter((name) => name.endsWith('.node'));
  for (const name of hidden) renameSync(path.join(others, name), path.join(others, `${name}.hidden`));
  await expectFallback('a missing binary', {}, /It holds no binary/, /build it here/);
  for (const name of hidden) renameSync(path.join(others, `${name}.hidden`), path.join(others, name));

  writeFileSync(file, 'This is not a shared library.\n'.repeat(100));
  await expectFallback('a damaged binary', {}, /hqq\S*\.node\b/, /damaged, or for another platform: install hqq again/);
  const seen = lastJson(await run('node', ['both.mjs'], { cwd: project, env }));
  check(
    'ESM, CommonJS and a worker of one process warn once',
    seen.names?.join() === 'js,js,js' && seen.warnings.join() === 'HQQ_JS_BACKEND',
    seen,
  );
  const silent = await use({ HQQ_BACKEND: 'js' });
  check(
    'HQQ_BACKEND=js chooses JavaScript without a warning',
    silent.backend?.name === 'js' && silent.warnings.length === 0,
    silent,
  );

  rmSync(file);
  copyFileSync(kept, file);
  rmSync(kept);
  check('with its binary again it is native', (await use()).backend?.name === 'native');

  const alien = await use({ HQQ_ISA: 'scalar' });
  check(
    'HQQ_ISA=scalar: the kernels of a processor without AVX2, native',
    alien.backend?.isa === 'scalar' && alien.same && alien.warnings.length === 0,
    alien,
  );
}

/** Emulated processors, what kernels they get, and a feature that the doctor must not claim. */
const PROCESSORS = [
  { cpu: 'Nehalem', isa: 'scalar', lacks: 'avx2' },
  { cpu: 'Haswell', isa: 'avx2', lacks: 'avx512f' },
];

/** The package in Node on other processors: the right kernels, and no illegal instruction. */
export async function processors({ project, env }) {
  // The emulator by its whole path: the test's own has nothing but node and npm.
  const folder = process.env.PATH.split(path.delimiter).find((dir) => existsSync(path.join(dir, 'qemu-x86_64-static')));
  const emulator = path.join(folder, 'qemu-x86_64-static');
  for (const { cpu, isa, lacks } of PROCESSORS) {
    const on = (...args) => run(emulator, ['-cpu', cpu, process.execPath, ...args], { cwd: project, env });
    const seen = lastJson(await on('esm.mjs'));
    check(
      `${cpu}: ${isa} kernels, the bytes of JavaScript, no warning`,
      seen.status === 0 && seen.backend?.isa === isa && seen.same && seen.warnings.length === 0,
      seen,
    );
    const { status, stdout } = await on('node_modules/hqq/dist/cli.mjs', 'doctor', '--json');
    const report = status === 0 ? JSON.parse(stdout) : {};
    const told = report.features?.length > 0 && !report.features.includes(lacks) && report.chosen.isa === isa;
    check(
      `${cpu}: the doctor names the processor's features and the choice`,
      told && !report.runnable.includes('avx512'),
      stdout,
    );
  }
}
