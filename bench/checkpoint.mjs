// A whole checkpoint of 1.1 GB, disk to disk, against the two things that it cannot be faster than: the kernels on its weights,
// and `cp` of the folder with fsync. Each is measured three times in turn; prints one JSON document.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backend, quantize } from 'hqq';
import { median } from './measure.mjs';
import { writeLlama } from './model.mjs';

const cli = fileURLToPath(new URL('../dist/cli.mjs', import.meta.url));
const work = mkdtempSync(join(process.env.HQQ_BENCH_DIR ?? tmpdir(), 'hqq-bench-'));
const model = join(work, 'model');
const { threads, isa } = backend();

// A Llama of half a billion weights.
const sizes = { hidden: 2048, ffn: 5632, layers: 11, vocabulary: 16000 };

async function kernels({ tensors, pool }) {
  let seconds = 0;
  for (const [i, { name, shape, count }] of tensors.entries()) {
    if (!name.includes('_proj')) continue;
    const start = performance.now();
    await quantize({ data: pool.subarray(i * 4096, i * 4096 + count), dtype: 'bfloat16', shape });
    seconds += (performance.now() - start) / 1e3;
  }
  return seconds;
}

function timed(work) {
  const start = performance.now();
  const result = work();
  return [(performance.now() - start) / 1e3, result];
}

try {
  const written = writeLlama(model, sizes);
  const times = { wall: [], kernel: [], copy: [] };
  let peakRss = 0;
  for (let round = 0; round < 3; round++) {
    times.kernel.push(await kernels(written));
    const copy = join(work, 'copy');
    times.copy.push(timed(() => execFileSync('sh', ['-c', 'cp -r "$1" "$2" && sync "$2"/*', 'sh', model, copy]))[0]);
    rmSync(copy, { recursive: true });
    const output = join(work, 'output');
    // The process tells its own peak, in kilobytes, when it has done its work.
    const script = `process.argv.splice(1, 1); process.on('exit', () => process.stderr.write(String(process.resourceUsage().maxRSS)));
      await import(${JSON.stringify(cli)});`;
    const args = [
      '--input-type=module',
      '-e',
      script,
      'hqq',
      cli,
      'quantize',
      model,
      '--importance',
      'none',
      '--out',
      output,
      '--json',
    ];
    const stderr = join(work, 'rss');
    const [wall] = timed(() =>
      execFileSync('sh', [
        '-c',
        // Not `exec`: a process that only changes its program keeps the peak of the one before, which is this one's.
        'rss=$1; shift; "$@" 2>"$rss" >/dev/null; exit $?',
        'sh',
        stderr,
        process.execPath,
        ...args,
      ]),
    );
    times.wall.push(wall);
    peakRss = Math.max(peakRss, 1024 * Number(execFileSync('cat', [stderr], { encoding: 'utf8' })));
    rmSync(output, { recursive: true });
  }
  const bytes = statSync(join(model, 'model.safetensors')).size;
  const [seconds, kernelSeconds, copySeconds] = [times.wall, times.kernel, times.copy].map(median);
  console.log(JSON.stringify({ isa, threads, bytes, seconds, kernelSeconds, copySeconds, peakRss, times }));
} finally {
  rmSync(work, { recursive: true, force: true });
}
