import { fileURLToPath, pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { loadLanguageModel } from '../../lib/runtime/load.js';
import { openTokenizer } from '../../lib/runtime/text/tokenizer.js';
import { freshPath, llama, modelFolder } from '../support/checkpoints.js';
import { SHIPPED } from '../support/language-models.js';

describe('a path', () => {
  test('may be a file: URL', async () => {
    const folder = modelFolder([llama()]);
    const [from, to, back] = [folder, freshPath(), freshPath()].map((path) => pathToFileURL(path)) as [URL, URL, URL];
    const report = await quantizeModel(from, to);
    expect(report).toMatchObject({ input: folder, output: fileURLToPath(to) });
    await dequantizeModel(to, back);
    expect((await compareModels(from, back)).totals.weights).toBeGreaterThan(0);
    const model = await openModel(to);
    expect(model.path).toBe(fileURLToPath(to));
    await model.close();
    const language = await loadLanguageModel(pathToFileURL(SHIPPED));
    await language.close();
    expect(await (await openTokenizer(pathToFileURL(SHIPPED))).encode('a')).not.toHaveLength(0);
    const foreign = { href: to.href, protocol: 'file:' } as URL; // of another realm, whatever its class
    await (await openModel(foreign)).close();
  });

  test.each<readonly [string, unknown, string]>([
    ['of the web', new URL('https://example.org/model'), 'got "https://example.org/model". Nothing is downloaded'],
    ['with a host', new URL('file://host/model%2F..'), 'got "file://host/model%2F..".'],
    ['of the web, as text', 'https://example.org/model', 'Nothing is downloaded: fetch it first (hf download)'],
    ['as text', 'file:///a%20b/c', 'Write the path, "/a b/c"; in a program, new URL(...) does as well.'],
    ['that is empty', '', 'got "".'],
    ['with a zero', 'a\0b', 'got "a'],
    ['that is a number', 7, 'got 7.'],
    ['that is nothing', undefined, 'got undefined.'],
    ['that is a Buffer', Buffer.from('a'), 'got Buffer(1).'],
  ])('%s is refused', async (_, path, got) => {
    const refused = (name: string) =>
      expect.objectContaining({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(`Expected ${name} to be the path or file: URL of a`),
      });
    await expect(openModel(path as string)).rejects.toThrow(refused('the model'));
    await expect(openModel(path as string)).rejects.toThrow(got);
    await expect(quantizeModel(SHIPPED, path as string)).rejects.toThrow(refused('the output'));
    await expect(dequantizeModel(path as string, 'x')).rejects.toThrow(refused('the input'));
    await expect(compareModels(SHIPPED, path as string)).rejects.toThrow(refused('the quantized model'));
    await expect(loadLanguageModel(path as string)).rejects.toThrow(refused('the model'));
    await expect(openTokenizer(path as string)).rejects.toThrow(refused('the tokenizer'));
  });

  test('of the output is the second argument, which options do not stand in for', async () => {
    const refused =
      /Expected the output .* got an object of Object\. It is an argument of its own, before the options\./;
    await expect(quantizeModel(SHIPPED, { out: 'x' } as never)).rejects.toThrow(refused);
    await expect(dequantizeModel(SHIPPED, { out: 'x' } as never)).rejects.toThrow(refused);
  });
});
