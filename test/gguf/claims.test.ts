import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { writeFamily } from '../../interop/llama.cpp/families.mjs';
import { GgufEnvelope } from '../../lib/containers/gguf/envelope.js';
import { headerOf } from '../../lib/containers/gguf/language/pairs.js';
import { tokenizerFiles } from '../../lib/containers/gguf/language/tokenizer-from-gguf.js';
import type { WrittenValue } from '../../lib/containers/gguf/values.js';
import { openSourceAs } from '../../lib/containers/list.js';
import { HqqError } from '../../lib/messages/errors.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { failure, freshPath } from '../support/checkpoints.js';
import { floatTensor, type GgufPair, ggufFile } from '../support/gguf.js';

/** A file of these pairs. */
function fileOf(...pairs: readonly GgufPair[]): string {
  const path = freshPath('x.gguf');
  fs.writeFileSync(path, ggufFile(pairs, [floatTensor('token_embd.weight', [2, 32], new Float32Array(64))]));
  return path;
}

/** A family's model as a GGUF file. */
async function familyFile(): Promise<string> {
  const path = freshPath('x.gguf');
  await dequantizeModel(writeFamily(freshPath(), 'llama'), path);
  return path;
}

describe('what a GGUF file claims of its model', () => {
  it('is no list where a single value is wanted, however long that is', async () => {
    for (const [file, key] of [
      [fileOf(['general.architecture', 'i32s', [1, 2]]), 'general.architecture'],
      [
        fileOf(['general.architecture', 'string', 'llama'], ['llama.attention.head_count', 'i32s', [1]]),
        'llama.attention.head_count',
      ],
    ] as const) {
      const error = await failure(() => dequantizeModel(file, freshPath('back')));
      expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
      expect(error.message).toContain(`Expected ${key} to be a single value, got a list.`);
    }
  });

  it('has an alignment, which is no list', async () => {
    const error = await failure(() => openSourceAs(fileOf(['general.alignment', 'i32s', [32]]), 'gguf'));
    expect(error.message).toMatch(/general\.alignment to be a power of two .* got an array/);
  });

  it('is of a known architecture, and what takes any is named', async () => {
    const file = fileOf(['general.architecture', 'string', 'gemma3']);
    const error = await failure(() => dequantizeModel(file, freshPath('back')));
    expect(error.message).toMatch(
      /one of llama, qwen2, qwen3, .* got "gemma3"\. .*--out back\.gguf.* any architecture/,
    );
  });
});

describe('the tokenizer of a GGUF file', () => {
  const made = (tokens: readonly string[]) => {
    const pairs = new Map<string, WrittenValue>([
      ['tokenizer.ggml.model', ['string', 'llama']],
      ['tokenizer.ggml.tokens', ['strings', tokens]],
      ['tokenizer.ggml.scores', ['f32s', tokens.map((_, id) => -id)]],
    ]);
    const refuse = (message: string) => new HqqError('ERR_CHECKPOINT_CONTENT', message);
    const files = tokenizerFiles(new GgufEnvelope(headerOf(pairs), new Map()), refuse);
    return (JSON.parse(files.get('tokenizer.json')!) as { model: { merges: unknown } }).model.merges;
  };

  it('is no list of anything else where texts or numbers are wanted, which is not read', () => {
    const bytes = Buffer.alloc(12 + 2 ** 20); // a list of bytes, which would take a million numbers
    bytes.writeBigUInt64LE(2n ** 20n, 4);
    const header = headerOf(new Map<string, WrittenValue>([['tokenizer.ggml.model', ['string', 'llama']]]));
    const begin = header.pairBytes.byteLength;
    const pair = { type: 9, begin, value: begin, end: begin + bytes.byteLength };
    const envelope = new GgufEnvelope(
      {
        ...header,
        pairs: new Map([...header.pairs, ['tokenizer.ggml.tokens', pair]]),
        pairBytes: Buffer.concat([header.pairBytes, bytes]),
      },
      new Map(),
    );
    const decoded = vi.spyOn(envelope, 'value');
    const refuse = (message: string) => new HqqError('ERR_CHECKPOINT_CONTENT', message);
    expect(() => tokenizerFiles(envelope, refuse)).toThrow('tokens to be a list of strings, got another list');
    expect(decoded).not.toHaveBeenCalled();
  });

  it('has pieces of some length, as each is cut at every place', () => {
    expect(made(['a'.repeat(256)])).toEqual([]);
    expect(() => made(['a'.repeat(257)])).toThrow(/pieces of at most 256 characters .* got one of 257/);
  });

  it('merges every two pieces that make one, of many long ones soon', () => {
    expect(made(['a', 'b', 'ab', '\u{1f600}', 'a\u{1f600}', '\u{1f600}a', 'aab'])).toEqual([
      ['a', 'b'],
      ['a', '\u{1f600}'],
      ['\u{1f600}', 'a'],
      ['a', 'ab'],
    ]);
    const long = Array.from({ length: 5000 }, (_, i) => `${'a'.repeat(240)}${i}`);
    const started = performance.now();
    expect(made(long)).toEqual([]);
    expect(performance.now() - started).toBeLessThan(3000);
  });

  it('is refused before the first weight is written', async () => {
    const file = await familyFile();
    const bytes = fs.readFileSync(file);
    const at = bytes.indexOf('gpt-2', bytes.indexOf('tokenizer.ggml.pre'));
    bytes.write('gpt-x', at);
    fs.writeFileSync(file, bytes);
    const onProgress = vi.fn();
    const error = await failure(() => dequantizeModel(file, freshPath('back'), { onProgress }));
    expect(error.message).toMatch(/tokenizer\.ggml\.pre to be one of .* got "gpt-x"/);
    expect(onProgress).not.toHaveBeenCalled();
  });

  it('is made once', async () => {
    const source = await openSourceAs(await familyFile(), 'safetensors');
    const read = vi.spyOn(GgufEnvelope.prototype, 'value');
    const texts = () => [...source.envelope.companions(new Map())];
    const made = texts();
    expect(made.map(({ name }) => name)).toContain('tokenizer.json');
    const reads = read.mock.calls.length;
    expect(texts()).toEqual(made);
    expect(read.mock.calls.length).toBe(reads);
    read.mockRestore();
    await source.close();
  });
});

describe('the folder that a GGUF file is made of', () => {
  it('needs no tokenizer to be compared with it', async () => {
    const folder = writeFamily(freshPath(), 'llama');
    const file = freshPath('x.gguf');
    await dequantizeModel(folder, file);
    fs.rmSync(join(folder, 'tokenizer.json'));
    const { dense } = await compareModels(folder, file);
    expect(dense.different).toEqual([]);
    expect(dense.equal).toBeGreaterThan(10);
  });

  it.each([[[null]], [['A']]])('has a template of parts: not %j', async (single) => {
    const folder = writeFamily(freshPath(), 'llama');
    const path = join(folder, 'tokenizer.json');
    const json = JSON.parse(fs.readFileSync(path, 'utf8')) as object;
    fs.writeFileSync(path, JSON.stringify({ ...json, post_processor: { type: 'TemplateProcessing', single } }));
    const error = await failure(() => dequantizeModel(folder, freshPath('x.gguf')));
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT_CONTENT', message: expect.stringMatching(/post_processor/) });
  });
});
