// What judges packages, and what takes them apart: publint, arethetypeswrong, esbuild, the file tracer of @vercel/nft.
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { check, lastJson, run } from '../checks.mjs';
import { isNative, isOneCopy } from './formats.mjs';

export async function judges({ root, tarball, env }) {
  const bin = (name) => path.join(root, 'node_modules', '.bin', name);
  const publint = await run('node', [bin('publint'), 'run', tarball, '--strict'], { env });
  check(
    'publint has nothing to say',
    publint.status === 0 && /All good!/.test(publint.stdout),
    publint.stdout + publint.stderr,
  );
  const attw = await run('node', [bin('attw'), tarball, '--format', 'ascii', '--no-emoji'], { env });
  check(
    'arethetypeswrong finds no problems',
    attw.status === 0 && /No problems found/.test(attw.stdout),
    attw.stdout + attw.stderr,
  );
}

export async function bundles({ project, work, root, env }) {
  const { build } = createRequire(path.join(root, 'package.json'))('esbuild');
  const bundle = async (entry, outfile, options) => {
    await build({
      absWorkingDir: project,
      entryPoints: [entry],
      outfile,
      bundle: true,
      platform: 'node',
      logLevel: 'silent',
      ...options,
    });
    return readFileSync(outfile, 'utf8').length;
  };
  for (const format of ['esm', 'cjs']) {
    const ending = format === 'esm' ? 'mjs' : 'cjs';
    const entry = format === 'esm' ? 'esm.mjs' : 'common.cjs';
    for (const external of [['hqq'], []]) {
      const what = external.length > 0 ? 'hqq external' : 'hqq inside';
      const name = `bundle-${format}-${external.length}.${ending}`;
      const size = await bundle(entry, path.join(project, name), { format, external });
      const seen = lastJson(await run('node', [name], { cwd: project, env }));
      const whole = external.length > 0 ? size < 20_000 : size > 100_000; // the bundle is what its label says
      check(`esbuild, ${format}, ${what}: native where node_modules/hqq is`, whole && isNative(seen), {
        size,
        ...seen,
      });
    }
    const mixed = `bundle-mixed.${ending}`;
    await bundle('one-copy.mjs', path.join(project, mixed), { format });
    const both = lastJson(await run('node', [mixed], { cwd: project, env }));
    check(`esbuild, ${format}, imported and required: one copy inside`, isOneCopy(both), both);
    // Alone, it says what is missing, and computes all the same.
    const alone = path.join(work, `alone-${format}`);
    mkdirSync(alone, { recursive: true });
    cpSync(path.join(project, `bundle-${format}-0.${ending}`), path.join(alone, `bundle.${ending}`));
    const seen = lastJson(await run('node', [`bundle.${ending}`], { cwd: alone, env }));
    const advice = seen.warnings?.[0]?.detail ?? '';
    check(
      `esbuild, ${format}, hqq inside, without node_modules: JavaScript, and one warning that says what to mark external`,
      seen.backend?.name === 'js' && seen.same && seen.warnings.length === 1 && advice.includes('--external:hqq'),
      seen,
    );
  }
}

/** What a program for browsers gets for `hqq`: bundle-browser.mjs, for the page. */
export async function bundleForBrowsers({ project, root }) {
  const { build } = createRequire(path.join(root, 'package.json'))('esbuild');
  const outfile = path.join(project, 'bundle-browser.mjs');
  writeFileSync(path.join(project, 'browser.mjs'), `export * from 'hqq';\n`);
  await build({
    absWorkingDir: project,
    entryPoints: ['browser.mjs'],
    outfile,
    bundle: true,
    format: 'esm',
    platform: 'browser',
    logLevel: 'silent',
  });
  check('esbuild for browsers takes hqq/js for hqq', !/\bnode:|\brequire\(/.test(readFileSync(outfile, 'utf8')));
}

export async function tracer({ project, work, root, env, binary }) {
  const { nodeFileTrace } = createRequire(path.join(root, 'package.json'))('@vercel/nft');
  for (const entry of ['esm.mjs', 'common.cjs']) {
    const { fileList } = await nodeFileTrace([path.join(project, entry)], { base: project, processCwd: project });
    const copy = path.join(work, `traced ${entry}`);
    for (const file of fileList) cpSync(path.join(project, file), path.join(copy, file), { recursive: true });
    const seen = lastJson(await run('node', [entry], { cwd: copy, env }));
    const traced = fileList.has(path.join('node_modules', 'hqq', binary));
    check(`@vercel/nft, ${entry}: the traced copy is native`, traced && isNative(seen), {
      traced,
      files: [...fileList],
      ...seen,
    });
  }
}
