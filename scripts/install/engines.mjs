// hqq/js outside of Node: in a browser, in Deno and in Bun, against the bytes of the native backend.

import { spawn } from 'node:child_process';
import { cpSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { check, lastJson, run } from '../checks.mjs';
import { isNative, isOneCopy } from './formats.mjs';
import { installTools } from './project.mjs';
import { bundleForBrowsers } from './tools.mjs';

/** Relative, of the largest result: the order of additions differs, no more. */
const FLOAT_TOLERANCE = 1e-6;

/** What the native backend computes in the project, for `same`. */
export async function reference({ project, env, sources }) {
  cpSync(path.join(sources, 'engine.mjs'), path.join(project, 'engine.mjs'));
  cpSync(path.join(sources, '..', 'conformance', 'digests.mjs'), path.join(project, 'digests.mjs'));
  writeFileSync(
    path.join(project, 'native.mjs'),
    `
    import * as hqq from 'hqq';
    import { digests, floats } from './digests.mjs';
    console.log(JSON.stringify({ backend: hqq.backend(), digests: await digests(hqq), floats: [...(await floats(hqq))] }));
  `,
  );
  const native = lastJson(await run('node', ['native.mjs'], { cwd: project, env }));
  const cases = Object.keys(native.digests ?? {}).length;
  check(
    `the native backend gives ${cases} results to compare with`,
    native.backend?.name === 'native' && cases > 100,
    native,
  );
  return native;
}

/** Every result that has one value has it; floats agree to rounding. */
function checkSame(name, native, seen) {
  const differing = Object.keys(native.digests).filter((key) => native.digests[key] !== seen.digests?.[key]);
  const largest = Math.max(...native.floats.map(Math.abs));
  const error =
    Math.max(...native.floats.map((value, i) => Math.abs(value - (seen.floats?.[i] ?? Infinity)))) / largest;
  const ok = differing.length === 0 && error <= FLOAT_TOLERANCE && seen.backend?.name === 'js';
  check(
    `${name}: the bytes of the native backend, and float products within ${FLOAT_TOLERANCE} (${error.toExponential(1)})`,
    ok,
    { differing: differing.slice(0, 5), error, seen: seen.digests ? undefined : seen },
  );
}

export async function chromium({ program, project, work, root, native, sources }) {
  await bundleForBrowsers({ project, root });
  const { serve } = await import(path.join(root, 'examples', 'browser', 'serve.mjs'));
  cpSync(path.join(sources, 'page.html'), path.join(project, 'page.html'));
  // The example, beside the package that it is to show: the installed one.
  const example = path.join(project, 'example');
  cpSync(path.join(root, 'examples', 'browser'), path.join(example, 'examples', 'browser'), { recursive: true });
  cpSync(path.join(project, 'node_modules', 'hqq', 'dist'), path.join(example, 'dist'), { recursive: true });

  let report;
  const reported = new Promise((resolve) => (report = resolve));
  const server = serve(project, report);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const flags = [
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    `--user-data-dir=${path.join(work, 'chromium')}`,
  ];
  const url = `http://127.0.0.1:${server.address().port}/page.html`;
  // A group of its own: Chromium is many processes, and all of them are to go.
  const browser = spawn(program, [...flags, url], { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  let stderr = '';
  browser.stderr.on('data', (text) => (stderr += text));
  const ended = new Promise((resolve) => browser.on('close', resolve).on('error', resolve));
  const timer = setTimeout(report, 90_000, undefined);
  const body = await Promise.race([reported, ended.then(() => undefined)]);
  clearTimeout(timer);
  try {
    process.kill(-browser.pid, 'SIGKILL');
  } catch {
    // it has ended by itself
  }
  await ended;
  server.closeAllConnections();
  server.close();

  const seen =
    typeof body === 'string' ? JSON.parse(body) : { failure: 'no report within 90 s', stderr: stderr.slice(-2000) };
  checkSame(`Chromium ${/Chrome\/(\d+)/.exec(seen.agent)?.[1] ?? ''}`, native, seen);
  check(
    'Chromium: a bundle of hqq for browsers computes the same',
    seen.same === true && seen.node?.length === 0,
    seen.error ?? '',
  );
  const widths = seen.example?.map(([bits]) => bits).join();
  check(
    'Chromium: the example shows its table',
    widths === '8,4,3,2,1' && seen.about.includes('gave 256 outputs'),
    seen.example ?? seen,
  );
}

/** Versions that are tested with: exact, so that a new release breaks no build here. */
const ENGINES = { deno: '2.9.6', bun: '1.4.5' };

/** Their npm packages bring the programs as packages of each platform, without an install script. */
async function installEngines(work) {
  const wanted = Object.entries(ENGINES).map(([name, version]) => `${name}@${version}`);
  const modules = await installTools(path.join(work, 'engines'), wanted);
  const arch = process.arch === 'arm64' ? { deno: 'arm64', bun: 'aarch64' } : { deno: 'x64', bun: 'x64' };
  return {
    deno: path.join(modules, '@deno', `linux-${arch.deno}-glibc`, 'deno'),
    bun: path.join(modules, '@oven', `bun-linux-${arch.bun}`, 'bin', 'bun'),
  };
}

export async function denoAndBun({ project, work, native, env: bare }) {
  const programs = await installEngines(work);
  const env = { ...process.env, DENO_DIR: path.join(work, 'deno-cache'), DENO_NO_UPDATE_CHECK: '1' };
  // Without a single permission: no file, no environment, no network.
  const deno = await run(programs.deno, ['run', '--node-modules-dir=manual', '--no-prompt', 'engine.mjs'], {
    cwd: project,
    env,
  });
  checkSame(`Deno ${ENGINES.deno}`, native, lastJson(deno));
  const bun = await run(programs.bun, ['engine.mjs'], { cwd: project, env });
  checkSame(`Bun ${ENGINES.bun}`, native, lastJson(bun));
  // Both run Node's addons, too; Deno where it is allowed to.
  for (const [name, args] of [
    ['deno', ['run', '--node-modules-dir=manual', '--allow-all', 'esm.mjs']],
    ['bun', ['esm.mjs']],
  ]) {
    const seen = lastJson(await run(programs[name], args, { cwd: project, env: { ...bare, DENO_DIR: env.DENO_DIR } }));
    check(`hqq itself is native in ${name}`, isNative(seen), seen);
    const mixed = [...args.slice(0, -1), 'one-copy.mjs'];
    const both = lastJson(await run(programs[name], mixed, { cwd: project, env: { ...bare, DENO_DIR: env.DENO_DIR } }));
    check(`import and require: one copy in ${name}`, isOneCopy(both), both);
  }
}
