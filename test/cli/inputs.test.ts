import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { expectFailure, hqq } from '../support/cli.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const SCRATCH = scratchFolder('inputs');

describe('a model by its id in the Hugging Face cache', () => {
  const entry = join(SCRATCH, 'hub', 'models--org--books');
  const snapshot = join(entry, 'snapshots', 'abc');
  for (const name of ['blobs', 'refs', 'snapshots/abc']) fs.mkdirSync(join(entry, name), { recursive: true });
  fs.writeFileSync(join(entry, 'refs', 'main'), 'abc');
  for (const name of fs.readdirSync(SHIPPED)) {
    fs.copyFileSync(join(SHIPPED, name), join(entry, 'blobs', name));
    fs.symlinkSync(`../../blobs/${name}`, join(snapshot, name));
  }
  const options = { env: { HF_HOME: SCRATCH }, cwd: SCRATCH };

  test('is read by every command', async () => {
    const inspected = JSON.parse((await hqq(['inspect', 'org/books', '--json'], options)).stdout) as { path: string };
    expect(inspected.path).toBe(snapshot);
    const quantized = await hqq(['quantize', 'org/books', '--out', 'books-4bit'], options);
    expect(quantized).toMatchObject({ status: 0, stderr: '' });
    expect(quantized.stdout).toMatch(/^org\/books -> books-4bit\n.*\nNext: hqq compare org\/books books-4bit\n$/s);
    expect(fs.readdirSync(join(SCRATCH, 'books-4bit')).sort()).toEqual(fs.readdirSync(SHIPPED).sort());
    expect((await hqq(['compare', 'org/books', 'books-4bit'], options)).stdout).toMatch(/compared +\d+ tensors/);
    expect((await hqq(['compare', entry, 'books-4bit'], options)).stdout).toMatch(/compared +\d+ tensors/);
    const generate = ['generate', '--prompt', 'The sea', '--max-tokens', '3'];
    const [byId, byPath] = await Promise.all([hqq([...generate, 'org/books'], options), hqq([...generate, SHIPPED])]);
    expect(byId).toEqual(byPath);
    const dense = join(SCRATCH, 'dense');
    expectFailure(
      await hqq(['dequantize', 'org/books', '--out', dense], options),
      1,
      /org\/books is not quantized with HQQ/,
    );
  });

  test('that is not there is told how to get it', async () => {
    expectFailure(
      await hqq(['quantize', 'org/book', '--out', 'out'], options),
      1,
      /Cannot read org\/book\. There is no such path, and no such model in the Hugging Face cache \(.*hub\)\. Models are not downloaded here: .* run hf download org\/book\.\n/,
    );
    expectFailure(await hqq(['compare', 'org/book', 'org/book'], options), 2, /got org\/book twice/);
  });
});

describe('a name that begins with a dash', () => {
  const cwd = join(SCRATCH, 'dashes');
  fs.mkdirSync(cwd);
  for (const name of ['-m.safetensors', '--json']) fs.copyFileSync(join(SHIPPED, 'model.safetensors'), join(cwd, name));

  test('is a path behind --, of an input and of an output', async () => {
    const { status, stdout, stderr } = await hqq(['quantize', '--out=--q', '--', '-m.safetensors'], { cwd });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toMatch(/^-m\.safetensors -> --q\n.*\nNext: hqq compare \.\/-m\.safetensors \.\/--q\n$/s);
    expect(fs.existsSync(join(cwd, '--q'))).toBe(true);
    expect(await hqq(['quantize', '--out', '-q', '--quiet', '--', '--json'], { cwd })).toMatchObject({
      status: 0,
      stdout: '',
    });
    const compared = await hqq(['compare', '--all', '--', '-m.safetensors', '--q'], { cwd });
    expect(compared.stdout).toMatch(/^-m\.safetensors <-> --q\n/);
    expect((await hqq(['dequantize', '--out', '-d', '--', '-q'], { cwd })).status).toBe(0);
    expect(JSON.parse((await hqq(['inspect', '--json', '--', '-d'], { cwd })).stdout)).toMatchObject({ path: '-d' });
    expect(fs.readdirSync(cwd).sort()).toEqual(['--json', '--q', '-d', '-m.safetensors', '-q']);
  });

  test('is told how to be written where it is not', async () => {
    expectFailure(
      await hqq(['inspect', '-m.safetensors'], { cwd }),
      2,
      /Unknown flag -m\.safetensors\. A path that begins with a dash goes behind --, or is written \.\/-m\.safetensors\./,
    );
    expectFailure(
      await hqq(['quantize', '--', '-m.safetensors', '--out', 'x'], { cwd }),
      2,
      /Unexpected argument "--out": "hqq quantize" takes <model>\. Flags go before --\./,
    );
    const prompt = ['generate', SHIPPED, '--prompt', '--- a title'];
    expectFailure(
      await hqq(prompt),
      2,
      /Got --- a title\. A value that begins with dashes is written --prompt=<value>\./,
    );
  });
});

describe('standard input', () => {
  const generate = `$HQQ generate '${SHIPPED}' --max-tokens 8`;
  const measure = `$HQQ perplexity '${SHIPPED}' --window 32`;

  test('is the prompt for -, without the end of its line', async () => {
    const want = await hqq(['generate', SHIPPED, '--max-tokens', '8', '--prompt', 'And the Lord said']);
    for (const input of [`printf 'And the Lord said'`, `echo 'And the Lord said'`, `printf 'And the Lord said\\r\\n'`])
      expect(await hqq([], { shell: `${input} | ${generate} --prompt -` })).toEqual(want);
    const two = await hqq([], { shell: `printf 'a\\nb\\n\\n' | ${generate} --json --prompt=-` });
    expect(JSON.parse(two.stdout)).toMatchObject({ prompt: 'a\nb\n' });
  });

  test('is the text for -, byte for byte', async () => {
    const file = join(SCRATCH, 'text.txt');
    fs.writeFileSync(file, 'It was the best of times, it was the worst of times.\n'.repeat(12));
    const want = await hqq([], { shell: `${measure} --text '${file}'` });
    expect(want.stdout).toMatch(/^perplexity \d/);
    expect(await hqq([], { shell: `cat '${file}' | ${measure} --text -` })).toEqual(want);
    expect(await hqq([], { shell: `${measure} --text - < '${file}'` })).toEqual(want);
  });

  test('that has nothing, or no text, is an error', async () => {
    const none = /Expected a prompt on standard input, got nothing/;
    for (const input of ['< /dev/null', '<<< ""', '< /'])
      expectFailure(await hqq([], { shell: `${generate} --prompt - ${input}` }), 1, none);
    const shell = `printf 'abc\\xff' | ${generate} --prompt -`;
    expectFailure(
      await hqq([], { shell }),
      1,
      /standard input: expected text in UTF-8, which byte 3 is not\. Convert it/,
    );
  });

  test('is left when the run is interrupted', async () => {
    const shell = `sleep 3 | timeout --preserve-status -s INT 2 ${generate} --prompt -`;
    expectFailure(await hqq([], { shell }), 130, /^hqq: interrupted\.\n$/);
  });
});
