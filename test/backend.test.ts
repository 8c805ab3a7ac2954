import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { activeBackend, availableBackends, backend, diagnose, openBackend } from '../lib/backend/index.js';
import { resolveThreads } from '../lib/compute/run.js';
import { runFixture } from './child.js';

const isas = availableBackends().filter((name) => name !== 'js');
const native = isas.length > 0;

interface Info {
  backend?: { name: string; isa: string; threads: number };
  error?: { name: string; code: string; message: string };
  warnings: { code?: string; message: string; detail?: string }[];
  onImport: { warnings: number; maps: number };
}

async function infoWith(env: Record<string, string>): Promise<Info> {
  const { status, stdout, stderr } = await runFixture('backend-info.mjs', [], env);
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout) as Info;
}

/** A folder in which no addon is found, or one that does not load. */
function folderWith(addon?: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'hqq-test-'));
  if (addon !== undefined) {
    mkdirSync(path.join(folder, 'build', 'Release'), { recursive: true });
    writeFileSync(path.join(folder, 'build', 'Release', 'hqq.node'), addon);
  }
  return folder;
}

it.runIf(process.env.HQQ_REQUIRE_NATIVE === '1')('has the native backend, which HQQ_REQUIRE_NATIVE demands', () => {
  expect(native).toBe(true);
});

describe('backends', () => {
  it('offers JavaScript everywhere, and scalar wherever the addon loads', () => {
    expect(availableBackends().at(-1)).toBe('js');
    if (native) expect(isas.at(-1)).toBe('scalar');
  });

  it.each(availableBackends())('opens %s, once', (name) => {
    const opened = openBackend(name);
    expect(opened.isa).toBe(name);
    expect(opened.name).toBe(name === 'js' ? 'js' : 'native');
    expect(openBackend(name)).toBe(opened);
  });

  it.runIf(native)('refuses an instruction set that is not there, naming those that are', () => {
    expect(() => openBackend('sse9')).toThrow(expect.objectContaining({ code: 'ERR_BACKEND_UNAVAILABLE' }));
    expect(() => openBackend('sse9')).toThrow(isas.join(', '));
  });

  it('stays with its choice', () => {
    expect(activeBackend()).toBe(activeBackend());
    expect(backend()).toMatchObject({ name: activeBackend().name, isa: activeBackend().isa });
  });
});

describe('diagnose', () => {
  it('tells the whole story', () => {
    const story = diagnose();
    expect(story).toMatchObject({ platform: process.platform, arch: process.arch, error: undefined });
    expect(story.cpu).not.toBe('');
    if (process.platform === 'linux') expect(story.libc).toMatch(/^(?:glibc \d+\.\d+|musl)$/);
    // What kernels need is among what the processor has.
    if (story.runnable.includes('avx2'))
      expect(story.features).toEqual(expect.arrayContaining(['avx', 'f16c', 'fma', 'avx2']));
    if (story.runnable.includes('avx512')) expect(story.features).toContain('avx512f');
    if (story.runnable.includes('neon')) expect(story.features).toContain('asimd');
    expect(story.attempts.length).toBeGreaterThan(0);
    expect(story.chosen).toEqual(backend());
    if (!native) return;
    expect(story.attempts.at(-1)!.path).toMatch(/\.node$/);
    expect(story.attempts.at(-1)!.failure).toBeUndefined();
    expect(story.fix).toBeUndefined();
    expect(story.compiled).toEqual(expect.arrayContaining([...story.runnable]));
    expect(['openmp', 'threads']).toContain(story.threading);
  });
});

describe('threads', () => {
  afterEach(() => vi.unstubAllEnvs());

  it('are what the call says, else HQQ_THREADS, else what the system offers', () => {
    vi.stubEnv('HQQ_THREADS', '');
    expect(resolveThreads()).toBe(Math.min(256, availableParallelism()));
    vi.stubEnv('HQQ_THREADS', '3');
    expect(resolveThreads()).toBe(3);
    expect(resolveThreads(5)).toBe(5);
  });

  it.each(['0', '257', '-1', '1.5', 'all', '1e2', ' 2'])('refuse HQQ_THREADS=%s', (value) => {
    vi.stubEnv('HQQ_THREADS', value);
    expect(() => resolveThreads()).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
  });

  it.each([0, 257, 1.5, Number.NaN, '2', null])('refuse threads: %s', (value) => {
    expect(() => resolveThreads(value as number)).toThrow(/^Expected threads to be an integer in \[1, 256\], got /);
  });
});

describe('the environment', () => {
  it('is read at the first call: importing loads and prints nothing', async () => {
    const { onImport, warnings } = await infoWith({ HQQ_BACKEND: 'js' });
    expect(onImport).toEqual({ warnings: 0, maps: 0 });
    expect(warnings).toEqual([]);
  });

  it('chooses JavaScript without a warning', async () => {
    expect((await infoWith({ HQQ_BACKEND: 'js' })).backend).toMatchObject({ name: 'js', isa: 'js' });
  });

  it.runIf(native)('chooses the best instruction set, or the one that it names', async () => {
    expect((await infoWith({})).backend).toMatchObject({ name: 'native', isa: isas[0] });
    const named = await infoWith({ HQQ_ISA: 'scalar', HQQ_THREADS: '7' });
    expect(named.backend).toEqual({ name: 'native', isa: 'scalar', threads: 7 });
  });

  it.runIf(native)('is the same for CommonJS', async () => {
    const { stdout, stderr } = await runFixture('backend-info.cjs');
    expect(JSON.parse(stdout || stderr)).toMatchObject({ backend: { name: 'native', isa: isas[0] }, packed: 64 });
  });

  it.runIf(native)('may not name an instruction set that the machine cannot run', async () => {
    const { error, warnings } = await infoWith({ HQQ_ISA: process.arch === 'arm64' ? 'avx2' : 'neon' });
    expect(error).toMatchObject({ name: 'HqqError', code: 'ERR_BACKEND_UNAVAILABLE' });
    expect(error!.message).toContain(`one of ${isas.join(', ')}`);
    expect(warnings).toEqual([]);
  });

  it('may not name a backend that does not exist', async () => {
    const { error } = await infoWith({ HQQ_BACKEND: 'natve' });
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION' });
    expect(error!.message).toContain('Did you mean "native"?');
  });
});

describe('without an addon', () => {
  it('warns once, with what was tried and what would help, and computes in JavaScript', async () => {
    const folder = folderWith();
    const { backend: chosen, warnings } = await infoWith({ HQQ_PREBUILD: folder });
    expect(chosen).toMatchObject({ name: 'js', isa: 'js' });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]!.code).toBe('HQQ_JS_BACKEND');
    expect(warnings[0]!.detail).toContain('No native build was found');
    expect(warnings[0]!.detail).toContain('build-native.cjs');
  });

  it('says which variables turned it away from where the binary is', async () => {
    const advice = async (env: Record<string, string>) => (await infoWith(env)).warnings[0]!.detail!;
    const folder = folderWith('not a binary, and not to be looked at');
    expect(await advice({ HQQ_PREBUILD: folder })).toContain(
      'The environment variable HQQ_PREBUILD decided where to look: unset it first. ',
    );
    const both = await advice({ HQQ_PREBUILD: folder, PREBUILDS_ONLY: '1' });
    expect(both).toContain('HQQ_PREBUILD and PREBUILDS_ONLY decided where to look: unset them first. ');
    expect(both).not.toContain(path.join(folder, 'build')); // it is not among what was tried
  });

  it('says why a binary that is there does not load', async () => {
    const folder = folderWith('not a shared object, but long enough for the linker to look at its first bytes');
    const { warnings } = await infoWith({ HQQ_PREBUILD: folder });
    expect(warnings[0]!.detail).toContain(path.join(folder, 'build', 'Release', 'hqq.node'));
  });

  it.each([{ HQQ_BACKEND: 'native' }, { HQQ_ISA: 'scalar' }])('fails where it is demanded: %j', async (demand) => {
    const { error, warnings } = await infoWith({ HQQ_PREBUILD: folderWith(), ...demand } as Record<string, string>);
    expect(error).toMatchObject({ name: 'HqqError', code: 'ERR_BACKEND_UNAVAILABLE' });
    expect(error!.message).toContain('No native build was found');
    expect(warnings).toEqual([]);
  });

  it('reads models all the same', async () => {
    const { status, stdout, stderr } = await runFixture('read-only.mjs', [], {
      HQQ_PREBUILD: folderWith(),
      HQQ_BACKEND: 'native',
    });
    expect(status, stderr).toBe(0);
    expect([stdout.trim(), stderr]).toEqual([String(1 << 20), '']);
  });
});
