// What test scripts share: running programs, installing what they need, and counting what passed.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { root } from './zig.mjs';

/** Runs a program to its end. `stdio` in place of pipes leaves the output to the caller. */
export function run(command, args, env = {}, stdio = ['ignore', 'pipe', 'pipe']) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, env: { ...process.env, ...env }, stdio });
    let output = '';
    let all = '';
    child.stdout?.on('data', (data) => ((output += data), (all += data)));
    child.stderr?.on('data', (data) => (all += data));
    child.on('error', (error) => resolve({ status: 127, output, all: String(error) }));
    child.on('close', (status, signal) => resolve({ status: status ?? `killed by ${signal}`, output, all }));
  });
}

const isThere = (program) => (process.env.PATH ?? '').split(path.delimiter).some((folder) => existsSync(path.resolve(folder, program)));

/** Makes programs available, as root on Debian, or says what is missing. `programs` are their names with their packages. */
export function need(programs) {
  const missing = () => Object.entries(programs).filter(([program]) => !isThere(program));
  if (missing().length > 0 && process.getuid?.() === 0 && isThere('apt-get')) {
    const options = { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' } };
    spawnSync('apt-get', ['-qq', 'update'], options);
    spawnSync('apt-get', ['-qq', 'install', '-y', ...missing().map(([, name]) => name)], options);
  }
  if (missing().length === 0) return;
  throw new Error(`Missing: ${missing().map(([program, name]) => `${program} (Debian: ${name})`).join(', ')}`);
}

export const seconds = (started) => `${((performance.now() - started) / 1000).toFixed(1)} s`;

const total = { passed: 0, failed: 0 };

/** Counts a check, and prints it. */
export function check(name, ok, details = '') {
  total[ok ? 'passed' : 'failed']++;
  console.log(`  ${ok ? 'ok  ' : 'FAIL'} ${name}${ok || details === '' ? '' : `\n${details}`}`);
}

/** Adds the sums of a test program's last line. Without one, or with an exit status that denies them, it has failed. */
export function countSums(name, { status, output, all }) {
  const sums = [...output.matchAll(/^(\d+) passed, (\d+) failed\r?$/gm)].at(-1);
  const [passed, failed] = sums ? [Number(sums[1]), Number(sums[2])] : [0, 1];
  total.passed += passed;
  total.failed += failed;
  const ok = status === 0 && failed === 0 && passed > 0;
  if (!ok && failed === 0) total.failed++;
  console.log(`  ${ok ? 'ok  ' : 'FAIL'} ${name}: ${sums?.[0].trim() ?? `no result, exit status ${status}`}`);
  if (!ok) console.log(all.trimEnd().split('\n').slice(-60).join('\n'));
}

const digestLines = (text) => text.split('\n').filter((line) => line.includes(' -> '));

/** The core's test program printed the digests of native/tests/digests.txt. */
export function expectDigests(name, { output }) {
  const expected = digestLines(readFileSync(path.join(root, 'native', 'tests', 'digests.txt'), 'utf8'));
  const got = digestLines(output);
  const differing = expected.filter((line, i) => line !== got[i]);
  const same = got.length === expected.length && expected.length > 0 && differing.length === 0;
  check(`${name}: the digests of native/tests/digests.txt`, same, `${got.length} lines of ${expected.length}; other than ${differing[0]}`);
}

/** Prints the sums; the exit status tells. */
export function finish() {
  console.log(`${total.passed} passed, ${total.failed} failed`);
  process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
}
