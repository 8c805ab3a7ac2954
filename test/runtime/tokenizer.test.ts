import { cpSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { HqqError } from '../../lib/messages/errors.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { generateTokens } from '../../lib/runtime/text/generate.js';
import { resolveGenerateOptions } from '../../lib/runtime/text/generate-options.js';
import { openChatTokenizer, openTokenizer } from '../../lib/runtime/text/tokenizer.js';
import { runFixture } from '../child.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const work = scratchFolder('tokenizer');
const ROOT = fileURLToPath(new URL('../..', import.meta.url));

function folderWith(name: string, files: Readonly<Record<string, string>>): string {
  const folder = join(work, name);
  mkdirSync(folder, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text);
  return folder;
}

describe('a tokenizer', () => {
  test('answers many at once, each what it asked', async () => {
    const tokenizer = await openTokenizer(SHIPPED);
    const texts = Array.from({ length: 50 }, (_, i) => `Call me Ishmael. ${'Some years ago '.repeat(i)}`);
    const ids = await Promise.all(texts.map((text) => tokenizer.encode(text)));
    expect(new Set(ids.map(String)).size).toBe(texts.length);
    const back = await Promise.all(ids.map((some) => tokenizer.decode(some)));
    expect(back).toEqual(texts);
    expect(await tokenizer.decode([])).toBe('');
    expect(await tokenizer.encode('')).toEqual([0]); // its token for the beginning
    await tokenizer.close();
  });

  test('in another form is refused with the call that makes tokenizer.json of it', async () => {
    for (const form of ['tokenizer.model', 'tekken.json', 'vocab.json']) {
      const folder = folderWith(`as-${form}`, { [form]: 'x', 'tokenizer_config.json': '{}' });
      await expect(openTokenizer(folder)).rejects.toMatchObject({
        code: 'ERR_CHECKPOINT_CONTENT',
        message: expect.stringContaining(`as ${form}, without the tokenizer.json`),
      });
      const call = `AutoTokenizer.from_pretrained(${JSON.stringify(folder)}).save_pretrained(${JSON.stringify(folder)})`;
      await expect(openTokenizer(folder)).rejects.toThrow(call);
    }
    await expect(openTokenizer(folderWith('no-tokenizer', {}))).rejects.toMatchObject({ code: 'ERR_IO' });
  });

  test('that could not be opened is looked for again by its model', async () => {
    const folder = join(work, 'late');
    cpSync(SHIPPED, folder, { recursive: true });
    rmSync(join(folder, 'tokenizer.json'));
    const model = await loadLanguageModel(folder);
    await expect(model.tokenizer()).rejects.toMatchObject({ code: 'ERR_IO' });
    cpSync(join(SHIPPED, 'tokenizer.json'), join(folder, 'tokenizer.json'));
    const tokenizer = await model.tokenizer();
    expect(await tokenizer.encode('')).toEqual([0]);
    expect(await model.tokenizer()).toBe(tokenizer);
    await model.close();
  });

  test('is closed with its model, or by itself: later calls are errors, and those under way do not hang', async () => {
    const [alone, model] = [await openTokenizer(SHIPPED), await loadLanguageModel(SHIPPED)];
    const ofModel = await model.tokenizer();
    await ofModel.encode('The sea');
    const pending = alone.encode('The sea '.repeat(10_000));
    await Promise.all([expect(pending).rejects.toMatchObject({ code: 'ERR_CLOSED' }), alone.close(), model.close()]);
    for (const tokenizer of [alone, ofModel]) {
      await expect(tokenizer.encode('The sea')).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await expect(tokenizer.decode([1])).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await tokenizer.close();
    }
  });

  test('serves a text that goes on after its model was closed', async () => {
    const model = await loadLanguageModel(SHIPPED);
    let text = '';
    for await (const token of model.generate('The sea', { maxTokens: 12 })) {
      text += token.text;
      if (text !== '') await model.close();
    }
    const again = await loadLanguageModel(SHIPPED);
    let want = '';
    for await (const token of again.generate('The sea', { maxTokens: 12 })) want += token.text;
    expect(text).toBe(want);
    await again.close();
  });

  test.each([
    ['no JSON', { 'tokenizer.json': '{"model"' }, 'tokenizer.json: not valid JSON: Expected'],
    ['a list', { 'tokenizer.json': '[]' }, 'tokenizer.json: expected a JSON object.'],
    ['nothing', { 'tokenizer.json': 'null' }, 'tokenizer.json: expected a JSON object.'],
    [
      'another model',
      { 'tokenizer.json': '{"model":{"type":"none"}}' },
      'tokenizer.json: the tokenizer cannot be made:',
    ],
    [
      'a broken config',
      { 'tokenizer.json': '{}', 'tokenizer_config.json': '3' },
      'tokenizer_config.json: expected a JSON',
    ],
  ])('of %s is an error that names the file', async (name, files, message) => {
    const folder = folderWith(name.replaceAll(' ', '-'), files);
    await expect(openTokenizer(folder)).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT_FORMAT',
      message: expect.stringContaining(message) as string,
    });
  });

  test('refuses what is no text and no ids', async () => {
    const tokenizer = await openTokenizer(SHIPPED);
    const wrong = { code: 'ERR_INVALID_ARGUMENT' };
    await expect(tokenizer.encode(undefined as never)).rejects.toMatchObject(wrong);
    for (const ids of [null, [2 ** 40], ['x'], [-1]]) {
      await expect(tokenizer.decode(ids as never)).rejects.toMatchObject(wrong);
    }
    await tokenizer.close();
  });

  test('lets go of a long prompt at once when it is aborted', async () => {
    const model = await loadLanguageModel(SHIPPED);
    await model.tokenizer();
    const text = model.generate('The sea '.repeat(400_000), { signal: AbortSignal.timeout(20) });
    await expect(text.next()).rejects.toMatchObject({ name: 'TimeoutError' });
    await model.close();
  });

  test('of a folder without one is an error that says where it comes from', async () => {
    const folder = folderWith('empty', {});
    await expect(openTokenizer(folder)).rejects.toMatchObject({
      code: 'ERR_IO',
      message:
        `${folder} has no tokenizer.json, which text needs. Copy it (and tokenizer_config.json, if there) from where the ` +
        'model comes from: its page on Hugging Face has it.',
    });
    await expect(openTokenizer(join(work, 'no-folder'))).rejects.toThrow('no-folder');
  });

  test('keeps no process alive that waits for nothing of it', async () => {
    const { status, stdout, stderr } = await runFixture('tokenizer.mjs', [join(ROOT, 'dist'), SHIPPED]);
    expect({ status, stdout: stdout.trim() }, stderr).toEqual({ status: 0, stdout: '10' });
  });
});

test('a prompt of token ids is named where text cannot be had, and only there', async () => {
  const missing = new HqqError('ERR_DEPENDENCY', 'There is no tokenizer.');
  const failing = { maxContext: 8, tokenizer: () => Promise.reject(missing) } as unknown as Parameters<
    typeof generateTokens
  >[0];
  const next = (options: object) =>
    generateTokens(failing, [], () => 'The sea', resolveGenerateOptions(options)).next();
  await expect(next({})).rejects.toThrow('There is no tokenizer. A prompt of token ids needs none.');
  await expect(next({ stop: '.' })).rejects.toBe(missing); // a text to stop at needs it, too
});

test('special tokens are spelled by their names, and long texts are read apart', async () => {
  const tokenizer = await openChatTokenizer(SHIPPED);
  const text = 'the sea '.repeat(2500);
  const [id] = (await tokenizer.encode('the')).slice(-1) as [number];
  expect(await tokenizer.spell([0, id])).toEqual(['<|endoftext|>', await tokenizer.decode([id])]);
  const [apart, here] = await Promise.all([tokenizer.encodeApart(text), tokenizer.encode(text)]);
  expect(apart).toEqual(here);
  await tokenizer.close();
  await expect(tokenizer.encodeApart(text)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  const chat = tokenizer.encodeChat({ template: 'x', specials: {} }, [{ role: 'user', content: 'x' }], {}, undefined);
  await expect(chat).rejects.toMatchObject({ code: 'ERR_CLOSED' });
});

describe('the package of tokenizers', () => {
  /** hqq as it is where nothing else is installed. */
  const alone = join(work, 'alone', 'dist');
  cpSync(join(ROOT, 'dist'), alone, { recursive: true });

  test('is found in the working directory, where hqq is installed for all', async () => {
    const project = join(work, 'project');
    const installed = join(project, 'node_modules', '@huggingface', 'tokenizers');
    mkdirSync(dirname(installed), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', '@huggingface', 'tokenizers'), installed, 'junction');
    const { status, stdout, stderr } = await runFixture('tokenizer.mjs', [alone, SHIPPED, project]);
    expect({ status, stdout: stdout.trim() }, stderr).toEqual({ status: 0, stdout: '10' });
  });

  test('is asked for where it is not', async () => {
    const { stdout } = await runFixture('tokenizer.mjs', [alone, SHIPPED, work]);
    expect(stdout).toMatch(
      /^ERR_DEPENDENCY .*neither beside hqq nor from the working directory\. Install it: npm install @huggingface\/tokenizers$/m,
    );
  });
});
