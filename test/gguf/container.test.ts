import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { gguf } from '../../lib/containers/gguf/container.js';
import { openSource } from '../../lib/containers/list.js';
import { openModel } from '../../lib/models/model.js';
import { expectError } from '../containers/helpers.js';
import { freshPath, randomWeights } from '../support/checkpoints.js';
import { floatTensor, type GgufPair, ggufFile, pairBytes, text, u32, u64 } from '../support/gguf.js';

const PAIRS: readonly GgufPair[] = [
  ['general.architecture', 'string', 'llama'],
  ['llama.block_count', 'u32', 2],
  ['llama.rope.freq_base', 'f32', 10000],
  ['tokenizer.ggml.tokens', 'strings', ['<s>', 'é', '😀']],
  ['tokenizer.ggml.scores', 'f32s', [0, -1, -2]],
  ['x.nested', 'nested', [[1, 2], [3]]],
  ['x.flag', 'bool', 1],
];
const WEIGHTS = randomWeights(64 * 32, 1);
const TENSORS = [
  floatTensor('token_embd.weight', [64, 32], WEIGHTS),
  floatTensor('output_norm.weight', [3], [1, 2, 3]),
  floatTensor('blk.0.attn_q.weight', [2, 32], WEIGHTS.subarray(0, 64)),
];

function written(bytes: Uint8Array, name = 'in.gguf'): string {
  const path = freshPath(name);
  fs.writeFileSync(path, bytes);
  return path;
}

describe('a GGUF file', () => {
  it('is opened: tensors, shapes, pairs', async () => {
    const source = await openSource(written(ggufFile(PAIRS, TENSORS)));
    expect(source.container).toBe('gguf');
    expect([...source.entries.values()].map(({ name, shape, type }) => [name, shape, type.name])).toEqual(
      TENSORS.map(({ name, shape }) => [name, shape, 'F32']),
    );
    expect(source.envelope.config).toEqual({
      'general.architecture': 'llama',
      'llama.block_count': 2,
      'llama.rope.freq_base': 10000,
      'tokenizer.ggml.tokens': ['<s>', 'é', '😀'],
      'tokenizer.ggml.scores': [0, -1, -2],
      'x.nested': [[1, 2], [3]],
      'x.flag': true,
    });
    await source.close();
  });

  it('gives its numbers to openModel', async () => {
    const model = await openModel(written(ggufFile(PAIRS, TENSORS)));
    expect(model.tensor('token_embd')).toEqual(WEIGHTS);
    expect([...model.tensor('output_norm.weight')]).toEqual([1, 2, 3]);
    await model.close();
  });

  it.each([32, 64, 8])('is written again to the same bytes, aligned to %i', async (alignment) => {
    const pairs: GgufPair[] = [...PAIRS, ['general.alignment', 'u32', alignment]];
    const bytes = ggufFile(pairs, TENSORS, alignment);
    const source = await openSource(written(bytes));
    const out = freshPath('out.gguf');
    const layout = await gguf.layout('out.gguf', [...source.entries.values()].reverse(), source.envelope);
    const sink = await gguf.create(out, layout);
    for (const entry of source.entries.values()) {
      const tensor = new Uint8Array(entry.end - entry.begin);
      await source.read(entry, 0, tensor);
      await sink.write(entry.name, 0, tensor);
    }
    await sink.finish();
    await source.close();
    expect(fs.readFileSync(out).equals(bytes)).toBe(true);
  });

  it('changes single pairs and keeps the bytes of all others', async () => {
    const pairs: GgufPair[] = [['general.file_type', 'u32', 0], ...PAIRS];
    const source = await openSource(written(ggufFile(pairs, TENSORS)));
    const set = { 'general.file_type': 15, 'general.quantization_version': 2 };
    const changed = source.envelope.replace({ layers: [], set, drop: ['x.flag'] });
    const { header } = (await gguf.layout('x', [], changed)) as unknown as { header: Uint8Array };
    const expected: GgufPair[] = [
      ['general.file_type', 'u32', 15],
      ...PAIRS.slice(0, -1),
      ['general.quantization_version', 'u32', 2],
    ];
    const body = Buffer.concat(expected.map(pairBytes));
    expect(
      Buffer.from(header)
        .subarray(24, 24 + body.length)
        .equals(body),
    ).toBe(true);
    expect(Buffer.from(header).readBigUInt64LE(16)).toBe(BigInt(expected.length));
    await source.close();
  });

  it('is read from several files, as one', async () => {
    const split = (no: number): GgufPair[] => [
      ...(no === 0 ? PAIRS : []),
      ['split.no', 'u32', no],
      ['split.count', 'u32', 2],
      ['split.tensors.count', 'i32', 3],
    ];
    const first = written(ggufFile(split(0), TENSORS.slice(0, 1)), 'm-00001-of-00002.gguf');
    const second = first.replace('00001-of', '00002-of');
    await expectError(() => openSource(first), 'ERR_IO', /00002-of-00002\.gguf.*does not exist/);
    fs.writeFileSync(second, ggufFile(split(1), TENSORS.slice(1)));
    for (const path of [first, second]) {
      const model = await openModel(path);
      expect(model.tensor('token_embd')).toEqual(WEIGHTS);
      expect([...model.tensor('output_norm.weight')]).toEqual([1, 2, 3]);
      await model.close();
    }
    fs.writeFileSync(second, ggufFile(split(0), TENSORS.slice(1)));
    await expectError(() => openSource(first), 'ERR_CHECKPOINT_FORMAT', /expected part 1 of 2/);
    const alone = written(ggufFile(split(0), TENSORS), 'm.gguf');
    await expectError(() => openSource(alone), 'ERR_CHECKPOINT_CONTENT', /in 2 files, but this one is not called/);
  });
});

const SOUND = ggufFile(PAIRS, TENSORS);
const head = (tensors: number | bigint, pairs: number | bigint, version = 3) =>
  Buffer.concat([Buffer.from('GGUF'), u32(version), u64(tensors), u64(pairs)]);
const info = (name: string, dims: readonly (number | bigint)[], type: number, offset: number | bigint) =>
  Buffer.concat([text(name), u32(dims.length), ...dims.map(u64), u32(type), u64(offset)]);
const file = (...parts: readonly Uint8Array[]) => Buffer.concat([...parts, Buffer.alloc(256)]);

describe('what is no sound GGUF file', () => {
  it.each<readonly [string, Uint8Array, RegExp]>([
    ['is truncated in its data', SOUND.subarray(0, SOUND.length - 512), /ends at byte \d+, past the end of the file/],
    ['is truncated in its header', SOUND.subarray(0, 100), /truncated/],
    ['ends after its magic', SOUND.subarray(0, 10), /expected at least 24 bytes, got 10/],
    ['has version 1', file(head(0, 0, 1)), /expected version 2 or 3 of GGUF, got 1/],
    ['is big-endian', file(head(0, 0, 0x03000000)), /big-endian/],
    ['claims 2^60 tensors', file(head(1n << 60n, 0)), /number of tensors to be at most/],
    ['claims 2^60 pairs', file(head(0, 1n << 60n)), /number of key-value pairs to be at most/],
    ['has a key of 2^60 bytes', file(head(0, 1), u64(1n << 60n)), /length of a key at byte 24 claims/],
    ['has an empty key', file(head(0, 1), u64(0), u32(4), u32(1)), /a key at byte 24 to have 1 to/],
    ['has a key that is no text', file(head(0, 1), u64(1), Buffer.from([0xff])), /UTF-8/],
    ['has a text of 2^60 bytes', file(head(0, 1), text('k'), u32(8), u64(1n << 60n)), /a text of "k" .*claims/],
    ['has 2^60 strings', file(head(0, 1), text('k'), u32(9), u32(8), u64(1n << 60n)), /length of "k" .*claims/],
    [
      'has more numbers than bytes',
      file(head(0, 1), text('k'), u32(9), u32(6), u64(200)),
      /the array "k" .*claims 800/,
    ],
    ['has an unknown type of values', file(head(0, 1), text('k'), u32(13)), /unknown type 13/],
    ['has an unknown type in an array', file(head(0, 1), text('k'), u32(9), u32(99), u64(0)), /unknown type 99/],
    [
      'nests arrays',
      file(head(0, 1), text('k'), u32(9), ...Array.from({ length: 9 }, () => Buffer.concat([u32(9), u64(1)]))),
      /arrays in arrays/,
    ],
    ['has a key twice', ggufFile([PAIRS[0]!, PAIRS[0]!], []), /every key once, got "general.architecture" again/],
    [
      'has alignment 0',
      ggufFile([['general.alignment', 'u32', 0]], []),
      /general.alignment to be a power of two .* got 0/,
    ],
    ['has alignment 48', ggufFile([['general.alignment', 'u32', 48]], []), /power of two .* got 48/],
    ['has an alignment of text', ggufFile([['general.alignment', 'string', '32']], []), /power of two .* got 32/],
    [
      'has a tensor twice',
      ggufFile([], [TENSORS[0]!, TENSORS[0]!]),
      /every tensor once, got "token_embd.weight" twice/,
    ],
    ['has five dimensions', file(head(1, 0), info('t', [1, 1, 1, 1, 1], 0, 0)), /has 5 dimensions/],
    ['has a negative dimension', file(head(1, 0), info('t', [-1n], 0, 0)), /size that is too large/],
    [
      'has dimensions that overflow',
      file(head(1, 0), info('t', [1n << 32n, 1n << 32n], 0, 0)),
      /size that is too large/,
    ],
    [
      'hides an overflow behind 0',
      file(head(1, 0), info('t', [0, 1n << 60n, 1n << 60n], 0, 0)),
      /size that is too large/,
    ],
    ['has an unknown type of tensor', file(head(1, 0), info('t', [32], 4, 0)), /has the type 4, which is unknown/],
    ['has rows that fill no blocks', file(head(1, 0), info('t', [100, 2], 12, 0)), /do not fill blocks of 256/],
    ['has an offset of 2^63', file(head(1, 0), info('t', [1], 0, 1n << 63n)), /begins at offset 9223372036854775808/],
    ['has an offset outside', file(head(1, 0), info('t', [8], 0, 4096)), /past the end of the file/],
    ['has an offset that is not aligned', file(head(1, 0), info('t', [8], 0, 8)), /no multiple of the alignment/],
    ['has tensors that overlap', file(head(2, 0), info('a', [16], 0, 0), info('b', [8], 0, 32)), /inside tensor "a"/],
    ['has a name too long', file(head(1, 0), info('n'.repeat(64), [8], 0, 0)), /1 to 63 bytes, got 64/],
  ])('is refused: it %s', async (_, bytes, message) => {
    await expectError(() => openSource(written(bytes)), 'ERR_CHECKPOINT_FORMAT', message);
  });
});
