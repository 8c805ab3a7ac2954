import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface ChildResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly milliseconds: number;
}

/**
 * Runs a script of test/fixtures in a process of its own, on the built package (`npm run build:ts`). `env` is laid over
 * the environment without the variables that choose a backend.
 */
export function runFixture(
  script: string,
  args: readonly string[] = [],
  env: Record<string, string> = {},
): Promise<ChildResult> {
  const keep = (name: string) => !name.startsWith('HQQ_') || name === 'HQQ_PREBUILD';
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => keep(name)));
  const file = fileURLToPath(new URL(`./fixtures/${script}`, import.meta.url));
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--expose-gc', file, ...args], { env: { ...inherited, ...env } });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text) => (stdout += text));
    child.stderr.on('data', (text) => (stderr += text));
    child.on('error', reject);
    child.on('close', (status, signal) =>
      resolve({ status, signal, stdout, stderr, milliseconds: performance.now() - started }),
    );
  });
}
