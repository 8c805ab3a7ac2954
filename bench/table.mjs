// What the table of transformers' classes costs `quantizeModel`: time of loading the file of dist/ that holds it, and of unpacking the
// parts that a class needs. Measured where it happens, in a fresh process each: between whole plans with and without a class the
// difference is smaller than chance. Prints one JSON document.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import Module from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import zlib from 'node:zlib';
import { median, quantile } from './measure.mjs';

const RUNS = 31;
const LAYERS = 24;
const CASES = { 'no class': undefined, LlamaForCausalLM: ['LlamaForCausalLM'], 'unknown class': ['NobodysModel'] };

const script = fileURLToPath(import.meta.url);
let spent = 0; // milliseconds
const [, , folder] = process.argv;
if (folder === undefined) measure();
else await planOnce();

function measure() {
  const scratch = mkdtempSync(join(tmpdir(), 'hqq-bench-table-'));
  try {
    const rows = Object.entries(CASES).map(([name, architectures], index) => {
      const path = join(scratch, String(index));
      writeModel(path, architectures);
      const runs = Array.from({ length: RUNS }, () =>
        Number(execFileSync(process.execPath, [script, path], { encoding: 'utf8' })),
      );
      return { name, ms: median(runs), low: quantile(runs, 0.25), high: quantile(runs, 0.75) };
    });
    console.log(JSON.stringify({ runs: RUNS, rows }));
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** `call`, whose time goes to `spent` where `counts` says so. */
function timed(call, counts) {
  return function (...args) {
    if (!counts(...args)) return call.apply(this, args);
    const start = performance.now();
    try {
      return call.apply(this, args);
    } finally {
      spent += performance.now() - start;
    }
  };
}

async function planOnce() {
  zlib.brotliDecompressSync = timed(zlib.brotliDecompressSync, () => true);
  Module._load = timed(Module._load, (name) => /\bknown-/.test(name));
  const { quantizeModel } = Module.createRequire(script)('../dist/index.cjs');
  await quantizeModel(folder, `${folder}-out`, { dryRun: true, importance: 'none' });
  console.log(spent);
}

/** A Llama of small matrices, with as many tensors as one of a billion weights. */
function writeModel(path, architectures) {
  const tensors = [];
  const leaves = [
    'self_attn.q_proj',
    'self_attn.k_proj',
    'self_attn.v_proj',
    'self_attn.o_proj',
    'mlp.gate_proj',
    'mlp.up_proj',
    'mlp.down_proj',
  ];
  for (let i = 0; i < LAYERS; i++) for (const leaf of leaves) tensors.push(`model.layers.${i}.${leaf}.weight`);
  const bytes = 64 * 64 * 2;
  const header = Object.fromEntries(
    tensors.map((name, i) => [name, { dtype: 'BF16', shape: [64, 64], data_offsets: [i * bytes, (i + 1) * bytes] }]),
  );
  const text = JSON.stringify(header);
  const file = Buffer.alloc(8 + text.length + bytes * tensors.length);
  file.writeBigUInt64LE(BigInt(text.length));
  file.write(text, 8);
  mkdirSync(path);
  writeFileSync(join(path, 'model.safetensors'), file);
  writeFileSync(
    join(path, 'config.json'),
    JSON.stringify({ model_type: 'llama', tie_word_embeddings: false, architectures }),
  );
}
