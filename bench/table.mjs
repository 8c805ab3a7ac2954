// What the table of transformers' classes costs: processor time of planning a small Llama that names a class, less that of one that names
// none, for which the table is not read. A fresh process each. Prints one JSON document.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { median, quantile } from './measure.mjs';

const RUNS = 31;
const LAYERS = 24;
const CASES = { 'no class': undefined, LlamaForCausalLM: ['LlamaForCausalLM'], 'unknown class': ['NobodysModel'] };

const script = fileURLToPath(import.meta.url);
const [, , folder] = process.argv;
if (folder === undefined) measure();
else await planOnce();

function measure() {
  const scratch = mkdtempSync(join(tmpdir(), 'hqq-bench-table-'));
  try {
    const cases = Object.entries(CASES).map(([name, architectures], index) => {
      const path = join(scratch, String(index));
      writeModel(path, architectures);
      return { name, path, runs: [] };
    });
    for (let run = 0; run < RUNS; run++) {
      for (const { path, runs } of cases)
        runs.push(Number(execFileSync(process.execPath, [script, path], { encoding: 'utf8' })));
    }
    const without = median(cases[0].runs);
    const row = (name, values) => {
      return { name, cpuMs: median(values), low: quantile(values, 0.25), high: quantile(values, 0.75) };
    };
    const rows = cases.map(({ name, runs }) => row(`planning, ${name}`, runs));
    for (const { name, runs } of cases.slice(1))
      rows.push(
        row(
          `the table, ${name}`,
          runs.map((ms) => ms - without),
        ),
      );
    console.log(JSON.stringify({ runs: RUNS, rows }));
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

async function planOnce() {
  const { quantizeModel } = await import('../dist/index.mjs');
  const { user, system } = process.cpuUsage();
  await quantizeModel(folder, `${folder}-out`, { dryRun: true });
  const after = process.cpuUsage();
  console.log((after.user + after.system - user - system) / 1e3);
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
