// A whole checkpoint of 1.1 GB, disk to disk, against the two things that it cannot be faster than: the kernels on its weights,
// and `cp` of the folder with fsync. Each is measured three times in turn; prints one JSON document.
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backend, quantize } from 'hqq';
import { gaussian, median, toBfloat16 } from './measure.mjs';

const cli = fileURLToPath(new URL('../dist/cli.mjs', import.meta.url));
const work = mkdtempSync(join(process.env.HQQ_BENCH_DIR ?? tmpdir(), 'hqq-bench-'));
const model = join(work, 'model');
const { threads, isa } = backend();

// The shapes of a Llama of half a billion weights.
const [hidden, ffn, layers, vocabulary] = [2048, 5632, 11, 16000];
const weight = (name, rows, cols) => ({ name, shape: [rows, cols] });
const tensors = [
  weight('model.embed_tokens.weight', vocabulary, hidden),
  ...Array.from({ length: layers }, (_, i) => {
    const of = (name) => `model.layers.${i}.${name}.weight`;
    return [
      { name: of('input_layernorm'), shape: [hidden] },
      ...['q_proj', 'k_proj', 'v_proj', 'o_proj'].map((name) => weight(of(`self_attn.${name}`), hidden, hidden)),
      weight(of('mlp.gate_proj'), ffn, hidden),
      weight(of('mlp.up_proj'), ffn, hidden),
      weight(of('mlp.down_proj'), hidden, ffn),
    ];
  }).flat(),
  weight('lm_head.weight', vocabulary, hidden),
];
const count = (shape) => shape.reduce((product, n) => product * n, 1);
const isLinear = ({ name }) => name.includes('_proj');
// Weights differ in every tensor: a window into one sequence, at another place each.
const pool = toBfloat16(gaussian(ffn * hidden + 4096 * tensors.length, 0.02));
const dataOf = (i) => pool.subarray(i * 4096, i * 4096 + count(tensors[i].shape));

function writeModel() {
  mkdirSync(model);
  let offset = 0;
  const header = {};
  for (const { name, shape } of tensors) {
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, (offset += 2 * count(shape))] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const file = openSync(join(model, 'model.safetensors'), 'w');
  writeSync(file, Buffer.concat([length, json]));
  tensors.forEach(({ shape }, i) => {
    for (let left = count(shape); left > 0; ) {
      const part = pool.subarray(i * 4096, i * 4096 + Math.min(left, pool.length - i * 4096));
      writeSync(file, new Uint8Array(part.buffer, part.byteOffset, part.byteLength));
      left -= part.length;
    }
  });
  closeSync(file);
  writeFileSync(join(model, 'config.json'), JSON.stringify({ model_type: 'llama', architectures: ['LlamaForCausalLM'] }));
  execFileSync('sync');
}

async function kernels() {
  let seconds = 0;
  for (let i = 0; i < tensors.length; i++) {
    if (!isLinear(tensors[i])) continue;
    const start = performance.now();
    await quantize({ data: dataOf(i), dtype: 'bfloat16', shape: tensors[i].shape });
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
  writeModel();
  const times = { wall: [], kernel: [], copy: [] };
  let peakRss = 0;
  for (let round = 0; round < 3; round++) {
    times.kernel.push(await kernels());
    const copy = join(work, 'copy');
    times.copy.push(timed(() => execFileSync('sh', ['-c', 'cp -r "$1" "$2" && sync "$2"/*', 'sh', model, copy]))[0]);
    rmSync(copy, { recursive: true });
    const output = join(work, 'output');
    // The process tells its own peak, in kilobytes, when it has done its work.
    const script = `process.argv.splice(1, 1); process.on('exit', () => process.stderr.write(String(process.resourceUsage().maxRSS)));
      await import(${JSON.stringify(cli)});`;
    const args = ['--input-type=module', '-e', script, 'hqq', cli, 'quantize', model, '--out', output, '--json'];
    const stderr = join(work, 'rss');
    const [wall] = timed(() => execFileSync('sh', ['-c', 'rss=$1; shift; exec "$@" 2>"$rss" >/dev/null', 'sh', stderr, process.execPath, ...args]));
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
