import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';

/** The program as users get it. */
const CLI = fileURLToPath(new URL('../../dist/cli.mjs', import.meta.url));

export interface CliResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** With these, even with `{}`, the program has a process of its own. */
export interface CliOptions {
  /** Laid over the environment without the variables that choose a backend. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** A shell line in which `$HQQ` stands for the program, instead of arguments. */
  readonly shell?: string;
  /** Called when the process has started, for tests that send signals. */
  readonly onStart?: (child: ChildProcess) => void;
}

let queue: Promise<unknown> = Promise.resolve();

/**
 * Runs `hqq`. With options as people do: the program as it is published, in a process of its own. Without, its commands in this process,
 * from their sources, one after the other: most of what a process takes is its start.
 */
export function hqq(args: readonly string[], options?: CliOptions): Promise<CliResult> {
  if (options) return spawned(args, options);
  const result = queue.then(() => inside(args));
  queue = result.catch(() => {});
  return result;
}

/** The variables that choose a backend, or how text looks: of the tests' own run. */
const isForeign = (name: string) =>
  (name.startsWith('HQQ_') && name !== 'HQQ_PREBUILD') || /^(FORCE_COLOR|NO_COLOR|COLUMNS)$/.test(name);

async function inside(args: readonly string[]): Promise<CliResult> {
  const { Program } = await import('../../lib/cli/program.js'); // by those alone that come here
  const texts = { stdout: '', stderr: '' };
  const { env, stderr } = process;
  const write = stderr.write;
  const warned: Error[] = [];
  const warn = (warning: Error) => warned.push(warning);
  process.env = Object.fromEntries(Object.entries(env).filter(([name]) => !isForeign(name)));
  process.on('warning', warn);
  stderr.write = (text: string | Uint8Array) => {
    texts.stderr += String(text);
    return true;
  };
  try {
    const program = new Program(args, new AbortController().signal, (text) => (texts.stdout += text));
    const status = await program.run();
    await new Promise(setImmediate); // warnings come in turns of their own
    const own = warned.filter((warning) => 'code' in warning && String(warning.code).startsWith('HQQ_'));
    if (own.length > 0) throw new Error(`Warnings are shown by a process of its own, with {}: ${own[0]!.message}`);
    return { status, signal: null, ...texts };
  } finally {
    stderr.write = write;
    process.env = env;
    process.off('warning', warn);
  }
}

function spawned(args: readonly string[], options: CliOptions): Promise<CliResult> {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !isForeign(name)));
  const env = { ...inherited, ...options.env };
  const program = `'${process.execPath}' '${CLI}'`;
  const [command, argv] =
    options.shell === undefined
      ? [process.execPath, [CLI, ...args]]
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
