// node interop/python/check.mjs <python> [pattern]: folders of tiny models in every format, loaded in transformers and held against what hqq
// says that they are. The python has what requirements.txt names; what a format needs besides, and is not there, is said and left out.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { dequantizeModel, quantizeModel } from 'hqq';

const here = path.dirname(fileURLToPath(import.meta.url));
const [python = 'python3', pattern = ''] = process.argv.slice(2);

const FAMILIES = ['llama-tied', 'llama-biases', 'qwen2', 'qwen3', 'mistral', 'mixtral', 'qwen3-moe'];
const CT = { to: 'compressed-tensors' };
/** Of AWQ and GPTQ kernels compute in float16: one rounding, of the largest weight. */
const ONE_ROUNDING = 5e-4;

/** Each a name, a family, options and how far weights may be off. */
const CASES = [
  ...FAMILIES.map((family) => [`${family}, 4 bits`, family, { ...CT, scaleDtype: 'float32' }, 0]),
  ...FAMILIES.filter((family) => !/mixtral|moe/.test(family)).map((family) => [
    ...[`${family}, 4 bits, integer zeros`, family, { ...CT, zeroPoint: 'integer', scaleDtype: 'float32' }, 0],
  ]),
  ...[2, 3, 5, 6, 8].flatMap((nbits) => [
    [`${nbits} bits`, 'llama-biases', { ...CT, nbits, groupSize: 32 }, 0],
    [`${nbits} bits, integer zeros`, 'llama-tied', { ...CT, nbits, zeroPoint: 'integer', scaleDtype: 'float32' }, 0],
  ]),
  ['groups of 32', 'qwen2', { ...CT, groupSize: 32 }, 0],
  ['groups of 128', 'qwen2', { ...CT, groupSize: 128 }, 0],
  ['whole rows', 'qwen2', { ...CT, groupSize: null }, 0],
  ['an untied head too', 'llama-biases', { ...CT, include: '*' }, 0],
  ['experts of 2 bits', 'mixtral', { ...CT, scaleDtype: 'float32', overrides: { '*.experts.*': { nbits: 2 } } }, 0],
  [
    '8 bits around experts',
    'qwen3-moe',
    { ...CT, scaleDtype: 'float32', overrides: { '*.self_attn.*': { nbits: 8 } } },
    0,
  ],
  ...['mixtral-stacks', 'qwen3-moe-stacks', 'qwen3.5-moe-stacks'].map((family) => [
    ...[family, family, { ...CT, scaleDtype: 'float32' }, 0],
  ]),
  ['experts of gpt-oss that stay', 'gpt-oss', { ...CT, exclude: '*.experts.*' }, 0],
  ['mixtral as AWQ', 'mixtral', { to: 'awq', exclude: '*.experts.*' }, ONE_ROUNDING],
  ['mixtral as GPTQ', 'mixtral', { to: 'gptq', exclude: '*.experts.*' }, ONE_ROUNDING],
  ...['awq', 'gptq'].map((to) => [
    ...[`stacks beside ${to.toUpperCase()}`, 'qwen3-moe-stacks', { to, exclude: '*.experts.*' }, ONE_ROUNDING],
  ]),
  ['mixtral as torchao', 'mixtral', { to: 'torchao' }, 0],
  ['mixed bits', 'mistral', { ...CT, overrides: { '*.down_proj': { nbits: 8 } } }, 0],
  ['a layer that stays', 'mistral', { ...CT, exclude: '*.1.mlp.down_proj.weight' }, 0],
  ...['llama-tied', 'llama-biases', 'qwen2', 'qwen3'].flatMap((family) => [
    [`${family} as AWQ`, family, { to: 'awq' }, ONE_ROUNDING],
    [`${family} as GPTQ`, family, { to: 'gptq' }, ONE_ROUNDING],
  ]),
  ...[2, 3, 8].map((nbits) => [`GPTQ, ${nbits} bits`, 'qwen2', { to: 'gptq', nbits }, ONE_ROUNDING]),
  ['GPTQ, integer zeros', 'qwen2', { to: 'gptq', zeroPoint: 'integer' }, ONE_ROUNDING],
  ...[4, 8].flatMap((nbits) => [
    [`torchao, ${nbits} bits`, 'llama-tied', { to: 'torchao', nbits }, 0],
    [`torchao, ${nbits} bits, integer zeros`, 'qwen2', { to: 'torchao', nbits, zeroPoint: 'integer' }, 0],
  ]),
  ['GPTQ without down_proj', 'qwen2', { to: 'gptq', exclude: '*.down_proj.weight' }, ONE_ROUNDING],
];

const run = (...args) => spawnSync(python, args, { stdio: ['ignore', 'inherit', 'ignore'] }).status === 0;
const has = (name) => spawnSync(python, ['-c', `import ${name}`], { stdio: 'ignore' }).status === 0;

const folder = mkdtempSync(path.join(tmpdir(), 'hqq-engines-'));
let failed = 0;
try {
  if (!run(path.join(here, 'tiny.py'), folder))
    throw new Error(`Expected ${python} to make tiny models, see requirements.txt.`);
  const missing = { awq: 'gptqmodel', gptq: 'gptqmodel', torchao: 'torchao' };
  const able = new Map([...new Set(Object.values(missing))].map((name) => [name, has(name)]));
  const byTolerance = new Map();
  for (const [name, family, options, within] of CASES.filter(([name]) => new RegExp(pattern).test(name))) {
    const needed = missing[options.to];
    if (needed && !able.get(needed)) {
      console.log(`left out: ${name} (no ${needed})`);
      continue;
    }
    const out = path.join(folder, `out ${name}`);
    mkdirSync(path.join(folder, 'floats'), { recursive: true });
    const floats = path.join(folder, 'floats', name);
    await quantizeModel(path.join(folder, family), out, options);
    await dequantizeModel(out, floats);
    byTolerance.set(within, [...(byTolerance.get(within) ?? []), out, floats]);
  }
  for (const [within, pairs] of byTolerance) {
    const ok = run(path.join(here, 'check_folder.py'), '--within', String(within), ...pairs);
    failed ||= ok ? 0 : 1;
  }
} finally {
  if (existsSync(folder)) rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failed;
