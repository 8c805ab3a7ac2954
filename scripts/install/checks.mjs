// Running programs, and counting what they show.
import { spawn } from 'node:child_process';

export const total = { passed: 0, failed: 0 };

/** Counts a check, and prints it. */
export function check(name, ok, details = '') {
  total[ok ? 'passed' : 'failed']++;
  const text = typeof details === 'string' ? details : JSON.stringify(details, null, 2);
  console.log(`  ${ok ? 'ok  ' : 'FAIL'} ${name}${ok || text === '' ? '' : `\n${text.trimEnd().replaceAll(/^/gm, '       ')}`}`);
  return ok;
}

/** Runs a program to its end; after `seconds` it is killed. */
export function run(command, args, { cwd, env = process.env, seconds = 120 } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    const timer = setTimeout(() => child.kill('SIGKILL'), seconds * 1000);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text) => (stdout += text));
    child.stderr.on('data', (text) => (stderr += text));
    child.on('error', (error) => resolve({ status: 127, stdout, stderr: String(error) }));
    child.on('close', (status, signal) => {
      clearTimeout(timer);
      resolve({ status: status ?? `killed by ${signal}`, stdout, stderr });
    });
  });
}

/** The JSON that a program printed in its last line; without one, all that is known of its failure. */
export function lastJson({ status, stdout, stderr }) {
  try {
    return { status, ...JSON.parse(stdout.trimEnd().split('\n').at(-1)) };
  } catch {
    return { status, stdout: stdout.slice(-2000), stderr: stderr.slice(-2000) };
  }
}
