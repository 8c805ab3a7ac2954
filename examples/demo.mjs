// npm run demo: quantizes a real model, shows what it cost, then proves that the result loads, natively and in JavaScript.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backend, openModel } from 'hqq';
import { demoGenerate } from './demo-generate.mjs';

const cli = fileURLToPath(new URL('../dist/cli.mjs', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'hqq-demo-'));
const hqq = (args, env = {}) => {
  console.log(
    `\n$ ${Object.entries(env)
      .map(([k, v]) => `${k}=${v} `)
      .join('')}hqq ${args.join(' ')}`,
  );
  execFileSync(process.execPath, [cli, ...args], { cwd: work, stdio: 'inherit', env: { ...process.env, ...env } });
};

try {
  cpSync(new URL('models/llama-2.3m-books', import.meta.url), join(work, 'books'), { recursive: true });
  const { name, isa, threads } = backend();
  console.log(
    `A Llama of 2.3 million weights, trained on public-domain books, in bfloat16. Backend: ${name}, ${isa}, ${threads} threads.`,
  );

  // Which inputs count, found once: by itself JavaScript would not look for it.
  hqq(['calibrate', 'books', '--out', 'inputs.safetensors']);
  const weighed = ['--importance', 'inputs.safetensors'];
  hqq(['quantize', 'books', '--out', 'books-4bit', ...weighed]);
  hqq(['quantize', 'books', '--out', 'books-4bit-js', ...weighed, '--quiet'], { HQQ_BACKEND: 'js' });
  const digest = (folder) =>
    createHash('sha256')
      .update(readFileSync(join(work, folder, 'model.safetensors')))
      .digest('hex');
  const [native, js] = [digest('books-4bit'), digest('books-4bit-js')];
  if (native !== js) throw new Error(`The two files differ: ${native} and ${js}`);
  console.log(`\nThe same file from both backends, byte for byte: sha256 ${native.slice(0, 16)}...`);

  hqq(['dequantize', 'books-4bit', '--out', 'books-dense', '--quiet']);
  hqq(['compare', 'books', 'books-dense']);

  const layer = 'model.layers.0.mlp.down_proj.weight';
  const [before, after] = await Promise.all([openModel(join(work, 'books')), openModel(join(work, 'books-4bit'))]);
  const show = (weights) => Array.from(weights.subarray(0, 6), (w) => w.toFixed(4).padStart(8)).join('');
  console.log(`\n${layer}, the first weights`);
  console.log(`  original  ${show(before.tensor(layer))}`);
  console.log(`  4 bits    ${show(after.tensor(layer))}`);
  await Promise.all([before.close(), after.close()]);

  hqq(['quantize', 'books', '--out', 'books-3bit', '--nbits', '3', '--quiet']);
  await demoGenerate([
    ['float32', join(work, 'books')],
    ['4 bits', join(work, 'books-4bit')],
    ['3 bits', join(work, 'books-3bit')],
  ]);
} finally {
  rmSync(work, { recursive: true, force: true });
}
