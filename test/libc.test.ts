import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

// Which of two binaries is taken where the C library is not what node-gyp-build takes it for. Systems are made up: the ones that
// this is about (musl without Alpine, glibc on Alpine) are rarely those that tests run on.

const system = vi.hoisted(() => ({ has: [] as string[], libc: '' as string | undefined }));
vi.mock('../lib/backend/native/machine.js', async (original) => ({
  ...(await original<typeof import('../lib/backend/native/machine.js')>()),
  hasLibc: (name: string) => system.has.includes(name),
  libc: () => system.libc,
}));

/** The file that was tried on a system, where the package holds `files`. */
async function tried(files: readonly string[]): Promise<string> {
  const folder = mkdtempSync(path.join(tmpdir(), 'hqq-libc-'));
  const binaries = path.join(folder, 'prebuilds', `linux-${process.arch}`);
  mkdirSync(binaries, { recursive: true });
  for (const name of files) writeFileSync(path.join(binaries, name), 'no shared object');
  vi.stubEnv('HQQ_PREBUILD', folder);
  vi.resetModules();
  const { loadAddon } = await import('../lib/backend/native/load.js');
  return path.basename(loadAddon().attempts.at(-1)!.path);
}

describe.runIf(process.platform === 'linux')('the binary', () => {
  beforeEach(() => vi.stubEnv('LIBC', ''));
  afterEach(() => vi.unstubAllEnvs());
  const BOTH = ['hqq.glibc.node', 'hqq.musl.node'];

  test('is that of musl on a system with musl alone that is not Alpine', async () => {
    Object.assign(system, { has: ['musl'], libc: 'musl' });
    expect(await tried(BOTH)).toBe('hqq.musl.node');
  });

  test('is that of glibc where glibc runs Node, whatever else there is', async () => {
    Object.assign(system, { has: ['glibc', 'musl'], libc: 'glibc 2.36' });
    expect(await tried(BOTH)).toBe('hqq.glibc.node');
  });

  test('is the one that is there, which then says what is wrong', async () => {
    Object.assign(system, { has: ['musl'], libc: 'musl' });
    expect(await tried(['hqq.glibc.node'])).toBe('hqq.glibc.node');
  });

  test('is what LIBC says', async () => {
    Object.assign(system, { has: ['musl'], libc: 'musl' });
    vi.stubEnv('LIBC', 'glibc');
    expect(await tried(BOTH)).toBe('hqq.glibc.node');
  });

  test('is chosen without asking for the C library where there is one', async () => {
    Object.assign(system, { has: ['glibc'], libc: undefined });
    expect(await tried(BOTH)).toBe('hqq.glibc.node');
  });
});
