import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Below the repository: the program looks for its package and its dependencies above itself. */
const CACHE = join(ROOT, 'node_modules', '.cache', 'hqq-test-cli');
const LOCK = `${CACHE}.lock`;
/** A lock that is older belongs to a run that was killed: a build takes seconds. */
const STALE_MS = 60_000;

/** Time of the newest file that the program is made from. */
function sourcesTime(): number {
  const lib = readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' }).map((name) =>
    join(ROOT, 'lib', name),
  );
  return Math.max(...[...lib, join(ROOT, 'tsdown.config.ts')].map((file) => statSync(file).mtimeMs));
}

function isFresh(file: string): boolean {
  return existsSync(file) && statSync(file).mtimeMs >= sourcesTime();
}

async function build(outDir: string): Promise<void> {
  const { build } = await import('tsdown');
  const { default: configs } = await import('../../tsdown.config.js');
  const config = [configs].flat().find(({ entry }) => typeof entry === 'object' && entry !== null && 'cli' in entry);
  await build({ ...config, config: false, cwd: ROOT, outDir, logLevel: 'silent' });
}

async function prepare(): Promise<string> {
  const shipped = join(ROOT, 'dist', 'cli.mjs');
  if (isFresh(shipped)) return shipped;
  const own = join(CACHE, 'cli.mjs');
  for (;;) {
    if (!existsSync(LOCK) && isFresh(own)) return own;
    try {
      mkdirSync(join(CACHE, '..'), { recursive: true });
      mkdirSync(LOCK); // fails where another test file builds
    } catch {
      const age = existsSync(LOCK) ? Date.now() - statSync(LOCK).mtimeMs : 0;
      if (age > STALE_MS) rmSync(LOCK, { recursive: true, force: true });
      await sleep(50);
      continue;
    }
    try {
      await build(CACHE);
      return own;
    } finally {
      rmSync(LOCK, { recursive: true, force: true });
    }
  }
}

let prepared: Promise<string> | undefined;

/** The program as users get it: `dist/cli.mjs` when that is up to date, else a build of its own. */
export function builtCli(): Promise<string> {
  return (prepared ??= prepare());
}

export interface CliResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  /** Laid over the environment without the variables that choose a backend. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** A shell line in which `$HQQ` stands for the program, instead of arguments. */
  readonly shell?: string;
  /** Called when the process has started, for tests that send signals. */
  readonly onStart?: (child: ChildProcess) => void;
}

/** Runs `hqq` in a process of its own. */
export async function hqq(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const file = await builtCli();
  const keep = (name: string) =>
    (!name.startsWith('HQQ_') || name === 'HQQ_PREBUILD') && !/^(FORCE_COLOR|NO_COLOR)$/.test(name);
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => keep(name)));
  const env = { ...inherited, ...options.env };
  const program = `'${process.execPath}' '${file}'`;
  const [command, argv] =
    options.shell === undefined
      ? [process.execPath, [file, ...args]]
      : ['/bin/bash', ['-c', options.shell.replaceAll('$HQQ', program)]];
  return new Promise((resolve, reject) => {
    const child = spawn(command, argv, { env, cwd: options.cwd, stdio: ['ignore', 'pipe', 'pipe'] });
    const texts = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => (texts[name] += text));
    }
    options.onStart?.(child);
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, ...texts }));
  });
}

/** Expects a failure that people can read: one paragraph that begins with the program's name, no stack, no result. */
export function expectFailure(result: CliResult, status: number, message: RegExp): void {
  expect(result.stderr).toMatch(message);
  expect(result.stderr).toMatch(/^hqq: [^\n]+\n$/);
  expect(result.stderr).not.toMatch(/\n\s+at |bug/);
  expect(result.stdout).toBe('');
  expect(result.status).toBe(status);
}

/** The same with `--json`: standard output holds one document, of the error. */
export function expectJsonFailure(result: CliResult, status: number, code: string, message: RegExp): void {
  const said = /^hqq: (.*)\n$/.exec(result.stderr)?.[1];
  expect(JSON.parse(result.stdout)).toEqual({ error: { code, message: said } });
  expectFailure({ ...result, stdout: '' }, status, message);
}
