#!/usr/bin/env node
// Fuzzes what reads hostile input. The last line is "N passed, N failed".
//
//   packed        native/fuzz: the core's operations behind the addon's argument checks, under AddressSanitizer and
//                 UndefinedBehaviorSanitizer, with libFuzzer (clang; as root on Debian, it is installed)
//   safetensors   headers, against a second reading of their JSON
//   gguf          headers, against what any reading of them must hold
//   onnx          graphs, against what any reading of them must hold, and that they are written again as they were
//   config        options, config.json, its edits in text, the index
//   engines       layers of compressed-tensors, AWQ, GPTQ and torchao, and what config.json says of them
//   checkpoint    whole models on disk, one file of which is damaged
//
//   node scripts/fuzz.mjs                                       all of them: 10^7 inputs, half an hour to an hour
//   node scripts/fuzz.mjs --runs quick                          what CI tries: half a minute
//   node scripts/fuzz.mjs --target config --seed 7 --runs 1000  one of them; the seed is printed
//   node scripts/fuzz.mjs --target config --seed 7 --first 123 --runs 1     input 123 of that seed again
//   node scripts/fuzz.mjs --target packed --input FILE          an input that libFuzzer has written, again
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { build } from 'tsdown';
import { run } from './checks.mjs';
import { root } from './pypi.mjs';
import { buildSanitized } from './sanitized.mjs';

const folder = path.join(root, 'build-fuzz');
const LIBRARY = ['safetensors', 'gguf', 'onnx', 'config', 'engines', 'checkpoint'];
const TARGETS = ['packed', ...LIBRARY];
const PACKED = { quick: 20_000, full: 700_000 };
/** Of all of them. */
const PATIENCE = 24 * 3600;

async function fuzzPacked({ seed, runs, input }) {
  const program = await buildSanitized('hqq_fuzz_packed');
  const findings = path.join(folder, 'findings/');
  mkdirSync(findings, { recursive: true });
  if (input) return run(program, [path.resolve(input)], { stdio: 'inherit' });
  const count = runs === 'quick' ? PACKED.quick : Number(runs ?? PACKED.full);
  const limits = ['-max_len=256', '-timeout=10', '-rss_limit_mb=3000', '-reduce_inputs=0'];
  const { status, stderr } = await run(
    program,
    [
      `-seed=${seed}`,
      `-runs=${count}`,
      `-artifact_prefix=${findings}`,
      ...limits,
      '-verbosity=0',
      '-print_final_stats=1',
    ],
    { seconds: PATIENCE },
  );
  const told = stderr.split('\n').filter((line) => line !== '' && !/NEW_FUNC|# Uses:|^#+ /.test(line));
  console.log([`packed: seed ${seed}, ${count} inputs`, ...told.slice(-80)].join('\n'));
  // An operation that never gets past the checks is not fuzzed.
  const passed = /^passed the checks .*$/m.exec(stderr)?.[0].matchAll(/(\w+) 0\b/g) ?? [];
  const missed = [...passed].map(([, name]) => name);
  if (missed.length === 0 || count < PACKED.quick) return { status };
  console.log(`packed: never run: ${missed.join(', ')}`);
  return { status: status || 1 };
}

/** The fuzzers of TypeScript, bundled with the library's sources. */
async function bundleLibrary() {
  const outDir = path.join(folder, 'js');
  const options = { format: 'esm', platform: 'node', fixedExtension: true, dts: false, logLevel: 'error' };
  await build({ config: false, cwd: root, entry: { main: 'test/fuzz/main.ts' }, outDir, ...options });
  return path.join(outDir, 'main.mjs');
}

function fuzzLibrary(program, target, { seed, first, runs }) {
  const options = Object.entries({ target, seed, first, runs }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, String(value)],
  );
  const args = ['--max-old-space-size=1024', program, ...options];
  return run(process.execPath, args, { stdio: 'inherit', seconds: PATIENCE });
}

const text = { type: 'string' };
const { values } = parseArgs({ options: { target: text, seed: text, first: text, runs: text, input: text } });
if (values.target !== undefined && !TARGETS.includes(values.target)) {
  throw new Error(`Expected --target to be one of ${TARGETS.join(', ')}, got ${values.target}.`);
}
const settings = { ...values, seed: Number(values.seed ?? Date.now() % 1e9) };
const wanted = values.target === undefined ? TARGETS : [values.target];
const failed = [];
const judge = (target, { status }) => status === 0 || failed.push(target);

async function library() {
  const targets = wanted.filter((target) => LIBRARY.includes(target));
  const program = targets.length > 0 && (await bundleLibrary());
  for (const target of targets) judge(target, await fuzzLibrary(program, target, settings));
}

async function packed() {
  if (wanted.includes('packed')) judge('packed', await fuzzPacked(settings));
}

// Beside each other: each takes one processor.
await Promise.all([packed(), library()]);
console.log(`${wanted.length - failed.length} passed, ${failed.length} failed`);
process.exitCode = failed.length === 0 ? 0 : 1;
