import { parseArgs } from 'node:util';
import { checkpoint } from './checkpoint.js';
import { config } from './config.js';
import { engines } from './engines.js';
import { gguf } from './gguf.js';
import { onnx } from './onnx.js';
import type { Target } from './outcome.js';
import { safetensors } from './safetensors.js';

// Run by scripts/fuzz.mjs, which says how to call it.

export const TARGETS: readonly Target[] = [safetensors, gguf, onnx, config, engines, checkpoint];

/** No input is larger than some kilobytes: one that takes so long, or memory that grows so much, is a finding. */
const MAX_MILLISECONDS = 2000;
const MAX_RESIDENT = 1.5 * 2 ** 30;
const CHECK_EVERY = 1024;

// Errors are most of the outcomes, and traces of the stack most of their cost.
Error.stackTraceLimit = 0;

/** Another program may have had the processor: this input again, in time of our own. */
async function checkTime(target: Target, seed: number, input: number): Promise<void> {
  const before = process.cpuUsage();
  await target.tryOne(seed, input);
  const { user, system } = process.cpuUsage(before);
  const took = (user + system) / 1000;
  if (took > MAX_MILLISECONDS) throw new Error(`took ${took.toFixed(0)} ms of the processor`);
}

async function fuzz(target: Target, seed: number, first: number, runs: number): Promise<void> {
  const started = performance.now();
  let accepted = 0;
  let slowest = 0;
  for (let input = first; input < first + runs; input++) {
    const before = performance.now();
    try {
      const result = target.tryOne(seed, input);
      if (typeof result === 'boolean' ? result : await result) accepted++;
      const took = performance.now() - before;
      slowest = Math.max(slowest, took);
      if (took > MAX_MILLISECONDS) await checkTime(target, seed, input);
      const done = input - first + 1;
      if (done % 500_000 === 0 && done < runs) console.log(`${target.name}: ${done} inputs, ${accepted} accepted`);
      if (input % CHECK_EVERY === 0 && process.memoryUsage.rss() > MAX_RESIDENT)
        throw new Error('takes too much memory');
    } catch (error) {
      Error.stackTraceLimit = 30;
      const again = `npm run fuzz -- --target ${target.name} --seed ${seed} --first ${input} --runs 1`;
      throw new Error(`${target.name}: input ${input} of seed ${seed} is a finding. Again:\n  ${again}`, {
        cause: error,
      });
    }
  }
  const took = ((performance.now() - started) / 1000).toFixed(1);
  const share = ((100 * accepted) / runs).toFixed(0);
  console.log(
    `${target.name}: seed ${seed}, ${runs} inputs in ${took} s, ${share} % accepted, slowest ${slowest.toFixed(0)} ms`,
  );
}

const { values } = parseArgs({
  options: {
    target: { type: 'string' },
    seed: { type: 'string' },
    first: { type: 'string' },
    runs: { type: 'string' },
  },
});
const target = TARGETS.find(({ name }) => name === values.target);
if (!target)
  throw new Error(`Expected a target among ${TARGETS.map(({ name }) => name).join(', ')}, got ${values.target}.`);
const number = (text: string | undefined, fallback: number) => (text === undefined ? fallback : Number(text));
const runs = values.runs === 'quick' ? target.quick : number(values.runs, target.full);
await fuzz(target, number(values.seed, Date.now() % 1e9), number(values.first, 0), runs);
