import '../digest.test.js';
import '../format.test.js';
import '../golden.test.js';
import '../identity.test.js';
import '../linear.test.js';
import '../runtime/operations.test.js';
import { availableBackends, diagnose, openBackend } from '../../lib/backend/index.js';
import { runAll } from './vitest.js';

// The tests of what is computed, as one program: scripts/test-prebuilds.mjs runs it on every Node that a prebuilt binary is for.
//
//   node build-conformance/main.mjs [--match=<regular expression of tests' names>] [instruction sets, best first, with what multiplies bytes]
//
// `avx2/maddubs scalar/plain`, say: what this machine must be able to run. Without, whatever it can; but never only JavaScript.

const { attempts, version, platform, arch } = diagnose();
console.log(
  `Node ${version.node}, ${platform}-${arch}, ${attempts.map(({ path, failure }) => `${path}: ${failure ?? 'loaded'}`).join('; ')}`,
);
const isas = availableBackends().filter((name) => name !== 'js');
const got = isas.map((isa) => `${isa}/${openBackend(isa).dot}`);
console.log(`Instruction sets: ${got.join(' ')}`);

const option = process.argv.slice(2).find((arg) => arg.startsWith('--match='));
const wanted = process.argv.slice(2).filter((arg) => arg !== option);
const isRight = isas.length > 0 && (wanted.length === 0 || wanted.join() === got.join());
if (!isRight)
  console.log(
    `FAIL Expected the instruction sets ${wanted.join(' ') || 'to be some'}, got ${got.join(' ') || 'none'}.`,
  );
if (!(await runAll(new RegExp(option?.slice('--match='.length) ?? ''))) || !isRight) process.exitCode = 1;
