import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { CompareReport, ModelReport, TensorInfo } from '../../lib/models/report.js';
import { llama, modelFolder } from '../support/checkpoints.js';
import { expectFailure, expectJsonFailure, hqq } from '../support/cli.js';
import { llamaTensors, safetensorsBytes, writeLlama } from '../support/models.js';
import { scratchFolder } from '../support/scratch.js';

const SCRATCH = scratchFolder('cli');
const MODEL = writeLlama(join(SCRATCH, 'llama'));
const FILE = join(SCRATCH, 'one.safetensors');
fs.writeFileSync(FILE, safetensorsBytes(llamaTensors(1, 64)));

let counter = 0;
const fresh = (name = 'out') => join(SCRATCH, `${counter++}-${name}`);

async function quantized(...flags: readonly string[]): Promise<string> {
  const out = fresh();
  expect(await hqq(['quantize', MODEL, '--out', out, '--quiet', ...flags])).toMatchObject({
    status: 0,
    stdout: '',
    stderr: '',
  });
  return out;
}

describe('quantize', () => {
  test('prints a summary on standard output and nothing else', async () => {
    const out = fresh();
    const { status, stdout, stderr } = await hqq(['quantize', MODEL, '--out', out], {});
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/config +4-bit, group 64, axis 1, solver joint\n/);
    expect(stdout).toMatch(/quantized +14 tensors, 81,920 weights\n/);
    expect(stdout).toMatch(/bits +4\.50 per weight/);
    expect(stdout).toMatch(
      /dense +\S+ % of the file: 1 embedding \S+ %, 1 excluded by default: lm_head \S+ %, 5 not a matrix \S+ %\n/,
    );
    expect(stdout).toMatch(/size +\S+ kB -> \S+ kB \(\S+x smaller\)\n/);
    expect(stdout).toMatch(/error +\S+ % relative, \S+ mean absolute\n/);
    expect(stdout).toMatch(/time +.* weights\/s\)\n/);
    expect(stdout.match(/model\.layers\.\d\.\S+_proj\.weight/g)).toHaveLength(5);
    expect(stdout).toMatch(new RegExp(`Next: hqq compare ${MODEL} \\S+\n$`));
    expect(stdout).not.toMatch(/\x1b|NaN|undefined/);
    expect(fs.readdirSync(out).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
  });

  test('--json is the report', async () => {
    const out = fresh();
    const args = ['quantize', MODEL, '--out', out, '--json', '--nbits', '3', '--group-size', 'none'];
    const { status, stdout, stderr } = await hqq(args, {});
    const report = JSON.parse(stdout) as ModelReport;
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(report).toMatchObject({ dryRun: false, config: { nbits: 3, groupSize: null } });
    expect(report.tensors).toHaveLength(14);
    expect(report.totals.weights).toBe(81920);
    expect(report.totals.relativeError).toBeGreaterThan(0);
  });

  test('globs and overrides reach the layers', async () => {
    const globs = ['--include', '*.q_proj', '--include', '*.k_proj', '--exclude', '*.1.*k_proj'];
    const overrides = ['--override', '*.0.*q_proj:nbits=8,group-size=32'];
    const { stdout, stderr } = await hqq(['quantize', MODEL, '--out', fresh(), '--json', ...globs, ...overrides]);
    expect(stderr).toBe('');
    const { tensors } = JSON.parse(stdout) as ModelReport;
    const short = (name: string) => name.split('.').slice(2, 5).join('.');
    const told = tensors.map(({ name, config }) => `${short(name)} ${config.nbits}/${config.groupSize}`);
    expect(told.sort()).toEqual(['0.self_attn.k_proj 4/64', '0.self_attn.q_proj 8/32', '1.self_attn.q_proj 4/64']);
  });

  test.each([[], ['--dry-run']])('the summary says mixed where layers differ', async (...flags) => {
    const overrides = ['*.0.*q_proj:nbits=8', '*.down_proj:group-size=32'].flatMap((text) => ['--override', text]);
    const { stdout } = await hqq(['quantize', MODEL, '--out', fresh(), ...overrides, ...flags]);
    const lines = [
      '4-bit, group 64, axis 1, solver joint: 11 tensors',
      '4-bit, group 32, axis 1, solver joint: 2 tensors',
    ];
    const all = ['config +mixed', ...lines, '8-bit, group 64, axis 1, solver joint: 1 tensor'];
    expect(stdout).toMatch(new RegExp(`  ${all.join('\\n +')}\\n  quanti`));
  });

  test('the summary names a configuration as it was asked for', async () => {
    const config = async (...flags: string[]) =>
      /config +(.*)\n/.exec((await hqq(['quantize', MODEL, '--out', fresh(), ...flags])).stdout)?.[1];
    expect(await config('--group-size', 'none')).toBe('4-bit, whole rows, axis 1, solver joint');
    expect(await config('--group-size', 'none', '--axis', '0')).toBe('4-bit, whole columns, axis 0, solver joint');
  });

  test.each([
    ['6', '8.50', '6-bit codes take 8 bits each in the file: --nbits 8 is as small'],
    ['5', '8.50', '5-bit codes take 8 bits each in the file: --nbits 8 is as small'],
    ['1.58', '2.50', '1.58-bit codes take 2 bits each in the file: --nbits 2 is as small'],
    ['4', '4.50', undefined],
  ])('the summary says what --nbits %s takes in the file', async (nbits, bits, wide) => {
    for (const flags of [[], ['--dry-run']]) {
      const { stdout } = await hqq(['quantize', MODEL, '--out', fresh(), '--nbits', nbits, ...flags]);
      expect(stdout).toContain(`${bits} per weight, scales and zeros included`);
      if (wide === undefined) expect(stdout).not.toContain('in the file');
      else expect(stdout).toContain(wide);
    }
  });

  test('--dry-run shows the plan and writes nothing', async () => {
    const out = fresh();
    const { status, stdout } = await hqq(['quantize', MODEL, '--out', out, '--dry-run']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/model\.layers\.0\.self_attn\.q_proj\.weight +64 x 64 +4-bit, group 64, axis 1 /);
    expect(stdout).toMatch(/lm_head\.weight .*kept: /);
    expect(stdout).toMatch(/quantize +14 tensors/);
    expect(stdout).not.toMatch(/NaN|undefined/);
    expect(fs.existsSync(out)).toBe(false);
  });

  test('--dry-run shows the plan where something stands, with a note', async () => {
    const out = await quantized();
    const { status, stdout, stderr } = await hqq(['quantize', MODEL, '--out', out, '--nbits', '2', '--dry-run']);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/quantize +14 tensors/);
    expect(stdout).toMatch(/note +As things are, the run itself would fail\. .* exists\. Pass force: true \(--force\)/);
    expect((await hqq(['quantize', MODEL, '--out', out, '--dry-run', '--force'])).stdout).not.toMatch(/would fail/);
  });

  test('folders above the output are made, and only with the output', async () => {
    const top = fresh();
    const out = join(top, 'deep', 'out');
    const { stdout } = await hqq(['quantize', MODEL, '--out', out, '--dry-run']);
    expect(stdout).not.toMatch(/As things are/);
    expect(fs.existsSync(top)).toBe(false);
    expectFailure(await hqq(['quantize', MODEL, '--out', out, '--include', 'nothing*']), 1, /nothing\*/);
    expect(fs.existsSync(top)).toBe(false);
    expect((await hqq(['quantize', MODEL, '--out', out])).status).toBe(0);
    expect(fs.readdirSync(join(top, 'deep'))).toEqual(['out']);
  });

  test('a file gives a file', async () => {
    const out = fresh('q.safetensors');
    expect((await hqq(['quantize', FILE, '--out', out])).status).toBe(0);
    expect(fs.statSync(out).isFile()).toBe(true);
  });

  test('an output that exists stays, unless --force', async () => {
    const out = await quantized();
    const before = fs.readFileSync(join(out, 'model.safetensors'));
    expectFailure(await hqq(['quantize', MODEL, '--out', out, '--nbits', '2']), 1, /exists.*--force/);
    expect(fs.readFileSync(join(out, 'model.safetensors')).equals(before)).toBe(true);
    expect((await hqq(['quantize', MODEL, '--out', out, '--nbits', '2', '--force'])).status).toBe(0);
    expect(fs.readFileSync(join(out, 'model.safetensors')).length).toBeLessThan(before.length);
  });
});

describe('what cannot be done is one clear error', () => {
  test('no such model', async () => {
    expectFailure(await hqq(['quantize', join(SCRATCH, 'nope'), '--out', fresh()]), 1, /nope\. It does not exist/);
  });

  test('names a damaged file by the folder that was given', async () => {
    const [cwd, good] = [fresh(), await quantized()];
    for (const name of ['model.safetensors', 'config.json']) {
      fs.rmSync(cwd, { recursive: true, force: true });
      fs.cpSync(good, join(cwd, 'a', 'b'), { recursive: true });
      fs.truncateSync(join(cwd, 'a', 'b', name), 99);
      const { stderr } = await hqq(['compare', MODEL, 'a/b'], { cwd });
      expect(stderr).toMatch(/^hqq: a\/b\/(model\.safetensors: the header claims|config\.json: not valid JSON)/);
    }
  });

  test('a truncated file', async () => {
    const file = fresh('cut.safetensors');
    fs.writeFileSync(file, fs.readFileSync(FILE).subarray(0, -1000));
    const out = fresh();
    expectFailure(await hqq(['quantize', file, '--out', out], {}), 1, /cut\.safetensors: .*truncated/);
    expectJsonFailure(await hqq(['inspect', file, '--json'], {}), 1, 'ERR_CHECKPOINT_FORMAT', /truncated/);
    expect(fs.existsSync(out)).toBe(false);
  });

  test('the output is the input', async () => {
    const result = await hqq(['quantize', MODEL, '--out', `${MODEL}/`, '--force']);
    expectFailure(result, 2, /is .*llama/);
    expect(fs.readdirSync(MODEL).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
  });

  test('a folder as the output of a file', async () => {
    const out = fresh();
    expectFailure(
      await hqq(['quantize', FILE, '--out', `${out}/`]),
      2,
      /to be a file, as the model is one, got ".*\/", which names a folder/,
    );
    expect(fs.existsSync(out)).toBe(false);
  });

  test('a model that is quantized already', async () => {
    expectFailure(
      await hqq(['quantize', await quantized(), '--out', fresh()]),
      1,
      /quantized already|already quantized/,
    );
  });

  test('one that is not, to be dequantized', async () => {
    expectFailure(await hqq(['dequantize', MODEL, '--out', fresh()]), 1, /quantized/);
  });

  test('nothing to quantize', async () => {
    expectFailure(
      await hqq(['quantize', MODEL, '--out', fresh(), '--exclude', '*']),
      1,
      /exclude \(--exclude\) to leave something to quantize, but it matches all \d+ weights of /,
    );
    expectFailure(await hqq(['quantize', MODEL, '--out', fresh(), '--include', 'transformer.*']), 1, /transformer/);
  });

  test('a weight that is not finite', async () => {
    const file = fresh('nan.safetensors');
    const data = new Float32Array(64 * 64).fill(0.5);
    data[64 * 3 + 7] = Number.NaN;
    fs.writeFileSync(file, safetensorsBytes({ 'a.weight': { shape: [64, 64], data } }));
    const out = fresh('q.safetensors');
    expectFailure(
      await hqq(['quantize', file, '--out', out]),
      1,
      /a\.weight of \S*nan\.safetensors holds NaN at row 3, column 7\. No scale fits it: .*--exclude/,
    );
    expect(fs.existsSync(out)).toBe(false);
  });

  test('a folder to write to that may not be written', async () => {
    const folder = process.getuid?.() === 0 ? '/proc' : fresh('closed'); // nothing is closed to root but what the kernel makes
    if (folder !== '/proc') fs.mkdirSync(folder, { mode: 0o555 });
    expectFailure(await hqq(['quantize', MODEL, '--out', join(folder, 'out')]), 1, /Cannot (create|write)/);
  });
});

describe('inspect', () => {
  test('never a wall of rows, unless all are asked for', async () => {
    const file = fresh('many.safetensors');
    const names = Array.from({ length: 600 }, (_, i) => `t${i}.weight`);
    fs.writeFileSync(
      file,
      safetensorsBytes(Object.fromEntries(names.map((name) => [name, { shape: [1], data: new Float32Array(1) }]))),
    );
    const { stdout } = await hqq(['inspect', file]);
    expect(stdout.match(/\.weight/g)).toHaveLength(500);
    expect(stdout).toMatch(/\n  and 100 tensors more \(--all shows them\)\n\n  tensors +600 tensors, /);
    expect((await hqq(['inspect', file, '--all'])).stdout.match(/\.weight/g)).toHaveLength(600);
  });

  test('an ordinary model, families in one row', async () => {
    const { status, stdout, stderr } = await hqq(['inspect', MODEL], {});
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/model\.layers\.\*\.self_attn\.q_proj\.weight +x2 +64 x 64 +F32 +32\.0 +/);
    expect(stdout).toMatch(/tensors +21 tensors, /);
    expect((await hqq(['inspect', MODEL, '--all'])).stdout).toMatch(
      /model\.layers\.1\.self_attn\.q_proj\.weight +64 x 64/,
    );
  });

  test('its architecture, where config.json names one', async () => {
    const model = modelFolder([llama()], {
      config: JSON.stringify({ architectures: ['LlamaForCausalLM'], model_type: 'llama', tie_word_embeddings: true }),
    });
    const { stdout } = await hqq(['inspect', model]);
    expect(stdout).toMatch(
      /architecture +LlamaForCausalLM\n +modules +1 embedding \(model\.embed_tokens\.weight\)\n +1 output head \(lm_head\.weight\)\n +8 linear\n +tied +lm_head is model\.embed_tokens; the files hold both\n/,
    );
    const { architecture } = JSON.parse((await hqq(['inspect', model, '--json'])).stdout) as { architecture: object };
    expect(architecture).toMatchObject({
      name: 'LlamaForCausalLM',
      known: true,
      modules: { 'output head': ['lm_head.weight'] },
      tied: [{ module: 'lm_head', source: 'model.embed_tokens', held: 'both' }],
    });
    const own = modelFolder([llama()], { config: JSON.stringify({ architectures: ['OwnModel'] }) });
    expect((await hqq(['inspect', own])).stdout).toMatch(/architecture +unknown \("OwnModel"\): names and shapes tell/);
  });

  test('a quantized one', async () => {
    const out = await quantized('--nbits', '2');
    const { stdout } = await hqq(['inspect', out]);
    expect(stdout).toMatch(/q_proj\.weight +x2 +64 x 64 +2-bit, group 64, axis 1, 2bit_u8, float16 scales +2\.50 +/);
    expect(stdout).toMatch(/quantized +14 tensors, 81,920 weights, 2\.50 bits per weight/);
    const report = JSON.parse((await hqq(['inspect', out, '--json'])).stdout) as {
      totals: object;
      tensors: TensorInfo[];
    };
    expect(report.totals).toMatchObject({
      tensors: 21,
      quantizedTensors: 14,
      quantizedWeights: 81920,
      bitsPerWeight: 2.5,
    });
    expect(report.tensors).toHaveLength(21);
    expect(report.tensors.find(({ name }) => name.endsWith('0.mlp.up_proj.weight'))).toMatchObject({
      shape: [128, 64],
      quantized: { nbits: 2, groupSize: 64, axis: 1, packing: '2bit_u8' },
    });
  });
});

describe('compare', () => {
  test('every quantized tensor against the original, worst first', async () => {
    const out = await quantized('--override', '*.0.self_attn.q_proj:nbits=2');
    const { status, stdout, stderr } = await hqq(['compare', MODEL, out], {});
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const lines = stdout.split('\n');
    expect(lines[3]).toMatch(/model\.layers\.0\.self_attn\.q_proj\.weight +64 x 64 +2-bit, .* \S+ %/);
    expect(stdout).toMatch(/compared +14 tensors, 81,920 weights\n/);
    expect(stdout).toMatch(/the others +7 tensors equal\n/);
    const report = JSON.parse((await hqq(['compare', MODEL, out, '--json'])).stdout) as CompareReport;
    expect(report).toMatchObject({ dense: { equal: 7, different: [] }, totals: { weights: 81920 } });
    expect(report.tensors).toHaveLength(14);
  });

  test('says what the conversion said', async () => {
    const out = fresh();
    const converted = JSON.parse((await hqq(['quantize', MODEL, '--out', out, '--json'])).stdout) as ModelReport;
    const compared = JSON.parse((await hqq(['compare', MODEL, out, '--json'])).stdout) as CompareReport;
    expect(compared.totals.relativeError).toBeCloseTo(converted.totals.relativeError, 6);
  });

  test('what was rounded is told apart from what is equal', async () => {
    const dense = fresh();
    await hqq(['dequantize', await quantized(), '--out', dense, '--dtype', 'float16']);
    const { stdout } = await hqq(['compare', MODEL, dense]);
    expect(stdout).toMatch(/the others +0 tensors equal, 7 tensors equal but for rounding \(float16\)\n/);
  });

  test('strangers, and a model with itself, are errors', async () => {
    const out = await quantized();
    const other = writeLlama(fresh('other'), 2, 96);
    expectFailure(
      await hqq(['compare', other, out]),
      1,
      /Expected two forms of one model, but "model\.\S+" is \[96, 96\]/,
    );
    const alien = fresh('alien.safetensors');
    fs.writeFileSync(alien, safetensorsBytes({ 'a.weight': { shape: [64, 64] } }));
    const strangers = await hqq(['compare', alien, out, '--json']);
    expectJsonFailure(strangers, 1, 'ERR_CHECKPOINT_CONTENT', /no tensor name in common/);
    expectFailure(await hqq(['compare', out, MODEL]), 1, /the first model to be the original/);
    expectFailure(await hqq(['compare', MODEL, `${MODEL}/.`]), 2, /Expected two models to compare, got \S+llama twice/);
  });
});

describe('dequantize', () => {
  test('gives an ordinary model that differs by the error alone', async () => {
    const out = await quantized();
    const back = fresh();
    const { status, stdout, stderr } = await hqq(['dequantize', out, '--out', back, '--dtype', 'float32'], {});
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/14 tensors/);
    const { tensors } = JSON.parse((await hqq(['inspect', back, '--json'])).stdout) as { tensors: TensorInfo[] };
    expect(tensors.map(({ name }) => name).sort()).toEqual(Object.keys(llamaTensors(2, 64)).sort());
    expect(tensors.every(({ dtype }) => dtype === 'F32')).toBe(true);
  });

  test('--json', async () => {
    const { stdout } = await hqq(['dequantize', await quantized(), '--out', fresh(), '--dtype', 'bfloat16', '--json']);
    expect(JSON.parse(stdout)).toBeTypeOf('object');
  });
});
