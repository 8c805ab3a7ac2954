// How long `hqq calibrate` takes to find importance from 2,048 random tokens, and its memory: of a Llama of 1.1 billion weights that is made
// here, and of SmolLM2-135M where HQQ_MODELS has it. HQQ_IMPORTANCE=own: from a text of the model's own. Prints one JSON document.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backend } from 'hqq';
import { writeLlama } from './model.mjs';

const cli = fileURLToPath(new URL('../dist/cli.mjs', import.meta.url));
const models = process.env.HQQ_MODELS ?? fileURLToPath(new URL('../../shared/models', import.meta.url));
const work = mkdtempSync(join(process.env.HQQ_BENCH_DIR ?? tmpdir(), 'hqq-bench-'));

/** As TinyLlama-1.1B. */
const SIZES = { hidden: 2048, ffn: 5632, layers: 22, vocabulary: 32_000, kv: 256 };

function measure(name, folder) {
  // The process tells its own peak, in kilobytes, when it has done its work.
  const script = `process.argv.splice(1, 1);
    process.on('exit', () => process.stdout.write('\\n' + process.resourceUsage().maxRSS));
    await import(${JSON.stringify(cli)});`;
  const args = [
    'calibrate',
    folder,
    '--out',
    join(work, 'statistics.safetensors'),
    '--importance',
    process.env.HQQ_IMPORTANCE ?? 'random',
    '--force',
  ];
  const started = performance.now();
  // By a shell that stays: a process that only changes its program keeps the peak of the one before, which is this one's.
  const command = [process.execPath, '--input-type=module', '-e', script, 'hqq', cli, ...args, '--quiet'];
  const child = spawnSync('sh', ['-c', '"$@"; exit $?', 'sh', ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const seconds = (performance.now() - started) / 1000;
  if (child.status !== 0) throw new Error(`hqq calibrate ended with ${child.status ?? child.signal}`);
  return { name, seconds, peakRss: 1024 * Number(child.stdout.trim().split('\n').at(-1)) };
}

try {
  const rows = [];
  const smol = join(models, 'smollm2');
  if (existsSync(join(smol, 'model.safetensors'))) rows.push(measure('SmolLM2-135M', smol));
  const model = join(work, 'model');
  const { parameters } = writeLlama(model, SIZES);
  rows.push(measure(`a Llama of ${(parameters / 1e9).toFixed(1)} billion weights`, model));
  const { isa, threads } = backend();
  console.log(JSON.stringify({ isa, threads, rows }));
} finally {
  rmSync(work, { recursive: true, force: true });
}
