// What the test scripts share: running programs, and counting what they show.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { allowMissing, Missing, OtherMachine } from './debian.mjs';
import { root } from './zig.mjs';

/** A program that hangs is killed. */
const PATIENCE = 3600;

/** Runs a program to its end, of at most that many seconds. `all` is its output and its errors as they came. */
export function run(
  command,
  args,
  { cwd = root, env = process.env, seconds = PATIENCE, stdio = ['ignore', 'pipe', 'pipe'] } = {},
) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio });
    const timer = setTimeout(() => child.kill('SIGKILL'), seconds * 1000);
    const text = { stdout: '', stderr: '', all: '' };
    for (const stream of ['stdout', 'stderr']) {
      child[stream]?.setEncoding('utf8').on('data', (data) => ((text[stream] += data), (text.all += data)));
    }
    const end = (status, all = text.all) => (clearTimeout(timer), resolve({ ...text, all, status }));
    child.on('error', (error) => end(127, String(error)));
    child.on('close', (status, signal) => end(status ?? `killed by ${signal}`));
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

const total = { passed: 0, failed: 0 };

/** Counts a check, and prints it; where it failed, with details. */
export function check(name, ok, details = '') {
  total[ok ? 'passed' : 'failed']++;
  const text = typeof details === 'string' ? details : JSON.stringify(details, null, 2);
  console.log(
    `  ${ok ? 'ok  ' : 'FAIL'} ${name}${ok || text === '' ? '' : `\n${text.trimEnd().replaceAll(/^/gm, '       ')}`}`,
  );
}

/** Adds the sums of a test program's last line. Without one, or with an exit status that denies them, it has failed. */
export function countSums(name, { status, stdout, all }) {
  const sums = [...stdout.matchAll(/^(\d+) passed, (\d+) failed\r?$/gm)].at(-1);
  const [passed, failed] = sums ? [Number(sums[1]), Number(sums[2])] : [0, 1];
  total.passed += passed;
  total.failed += failed;
  const ok = status === 0 && failed === 0 && passed > 0;
  if (!ok && failed === 0) total.failed++;
  console.log(`  ${ok ? 'ok  ' : 'FAIL'} ${name}: ${sums?.[0].trim() ?? `no result, exit status ${status}`}`);
  if (!ok) console.log(all.trimEnd().split('\n').slice(-60).join('\n'));
}

export const digestFile = path.join(root, 'native', 'tests', 'digests.txt');

/** The digests in the output of the core's test program. */
export const digestLines = (text) => text.split('\n').filter((line) => line.includes(' -> '));

/** Compares digests with the file's; with `exempt`, only lines that it does not match. */
export function checkDigests(name, text, exempt = () => false) {
  const expected = digestLines(readFileSync(digestFile, 'utf8'));
  const got = digestLines(text);
  const differing = expected.flatMap((line, i) =>
    line === got[i] || exempt(line) ? [] : [`${line}\n   got ${got[i]}`],
  );
  const same = got.length === expected.length && expected.length > 0 && differing.length === 0;
  check(
    `${name}: the digests of native/tests/digests.txt`,
    same,
    [`${got.length} lines`, ...differing.slice(0, 5)].join('\n'),
  );
}

export const seconds = (started) => `${((performance.now() - started) / 1000).toFixed(1)} s`;

/** Runs a part of the checks, and prints its time. An error is a failure, but where it says that this machine is not for it. */
export async function part(name, body) {
  const started = performance.now();
  try {
    return await body();
  } catch (error) {
    const isMissing = error instanceof Missing;
    if (error instanceof OtherMachine || (isMissing && allowMissing))
      console.log(`  NOT RUN ${name}: ${error.message}`);
    else check(name, false, isMissing ? error.message : error.stack);
    return undefined;
  } finally {
    console.log(`${name}: ${seconds(started)}`);
  }
}

/** Refuses parts that are not there, by all their names. */
export function checkParts(asked, parts) {
  const unknown = asked.filter((name) => !(name in parts));
  if (unknown.length > 0)
    throw new Error(`Expected parts among ${Object.keys(parts).join(', ')}, got ${unknown.join(', ')}.`);
}

/** Prints the sums; the exit status tells. */
export function finish() {
  console.log(`${total.passed} passed, ${total.failed} failed`);
  process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
}
