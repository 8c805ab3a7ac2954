import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Checkpoint } from '../../lib/containers/safetensors/checkpoint.js';
import { mostTensors, SMALL_TENSORS } from '../../lib/containers/safetensors/shards.js';
import { expectError, fileBytes, folderOf, freshPath, smallFile } from './helpers.js';

const FORMAT = 'ERR_CHECKPOINT_FORMAT';
const CONTENT = 'ERR_CHECKPOINT_CONTENT';
const INDEX = 'model.safetensors.index.json';
const index = (weight_map: unknown) => JSON.stringify({ metadata: { total_size: 8 }, weight_map });

describe('Checkpoint', () => {
  it('opens a single file', async () => {
    const folder = folderOf({ 'x.safetensors': smallFile('a', 'b'), 'config.json': '{}', 'tokenizer.json': '{}' });
    const checkpoint = await Checkpoint.open(join(folder, 'x.safetensors'));
    expect([
      checkpoint.envelope.folder,
      checkpoint.envelope.configFile,
      checkpoint.envelope.indexName,
      checkpoint.envelope.otherFiles,
    ]).toEqual([undefined, undefined, undefined, []]);
    expect([...checkpoint.entries.keys()]).toEqual(['a', 'b']);
    expect(checkpoint.entries.get('a')?.file).toBe(checkpoint.files[0]!.name);
    await checkpoint.close();
  });

  it('opens a folder and sorts its files', async () => {
    const folder = folderOf({
      'model.safetensors': smallFile('w'),
      'config.json': '{"a": NaN, "b": [1e400]}',
      'tokenizer.json': '{}',
      '.gitattributes': '',
      'sub/deep/x.txt': '',
      [INDEX]: index({ w: 'old.safetensors' }),
      'old.safetensors': 'junk',
      'pytorch_model-00001-of-00002.bin': '',
      'pytorch_model.bin.index.json': '',
      'training_args.bin': '',
      'x.gguf': '',
      'onnx/model.onnx': '',
      'original/consolidated.00.pth': '',
      'tf_model.h5': '',
      'y.partial': '',
      'z.partial/a': '',
      '.git/HEAD': '',
      '.cache/x': '',
      'blobs/real.txt': 'linked',
    });
    fs.symlinkSync('blobs/real.txt', join(folder, 'merges.txt'));
    fs.symlinkSync('blobs', join(folder, 'linked-folder'));
    fs.symlinkSync('nowhere', join(folder, 'broken.txt'));
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    const checkpoint = await Checkpoint.open(folder);
    expect(checkpoint.envelope.folder).toBe(folder);
    expect(checkpoint.envelope.indexName).toBeUndefined();
    expect(checkpoint.files.map(({ name }) => name)).toEqual(['model.safetensors']);
    expect(checkpoint.envelope.configFile).toEqual({
      text: '{"a": NaN, "b": [1e400]}',
      value: { a: Number.NaN, b: [Infinity] },
    });
    expect(checkpoint.envelope.otherFiles).toEqual([
      '.gitattributes',
      'blobs/real.txt',
      'merges.txt',
      'sub/deep/x.txt',
      'tokenizer.json',
      'training_args.bin',
    ]);
    expect(checkpoint.envelope.skippedFiles).toEqual([
      'broken.txt',
      'linked-folder',
      INDEX,
      'old.safetensors',
      'onnx/model.onnx',
      'original/consolidated.00.pth',
      'pipe',
      'pytorch_model-00001-of-00002.bin',
      'pytorch_model.bin.index.json',
      'tf_model.h5',
      'x.gguf',
    ]);
    await checkpoint.close();
  });

  it('stops at the first shard that the index does not describe', async () => {
    const map = Object.fromEntries(
      Array.from({ length: 20 }, (_, i) => [`t${i}`, `${String(i).padStart(2, '0')}.safetensors`]),
    );
    const files = Object.fromEntries(Object.entries(map).map(([tensor, file]) => [file, smallFile(tensor)]));
    const text = { [INDEX]: index(map) };
    // Later shards would fail in another way: they are not opened.
    const broken = { '07.safetensors': 'junk' };
    const more = { '03.safetensors': smallFile('t3', 'more') };
    await expectError(
      () => Checkpoint.open(folderOf({ ...files, ...broken, ...more, ...text })),
      FORMAT,
      /does not name "more"/,
    );
    const metadata = Object.fromEntries(Array.from({ length: 40_000 }, (_, i) => [`${i}`, '']));
    const wordy = (tensor: string) =>
      fileBytes(
        JSON.stringify({ __metadata__: metadata, [tensor]: { dtype: 'U8', shape: [4], data_offsets: [0, 4] } }),
        4,
      );
    const both = { '03.safetensors': wordy('t3'), '05.safetensors': wordy('t5') };
    await expectError(
      () => Checkpoint.open(folderOf({ ...files, ...both, ...text })),
      FORMAT,
      /\/model\/05\.safetensors: .*all shards/,
    );
  });

  it('opens shards in the order of their names, through links too', async () => {
    const folder = folderOf({
      [INDEX]: index({ c: 's2.safetensors', a: 's1.safetensors', b: 's1.safetensors' }),
      's2.safetensors': smallFile('c'),
      blob: smallFile('b', 'a'),
    });
    fs.symlinkSync('blob', join(folder, 's1.safetensors'));
    const checkpoint = await Checkpoint.open(folder);
    expect(checkpoint.envelope.indexName).toBe(INDEX);
    expect(checkpoint.files.map(({ name }) => name)).toEqual(['s1.safetensors', 's2.safetensors']);
    expect([...checkpoint.entries.keys()]).toEqual(['b', 'a', 'c']);
    expect(checkpoint.envelope.configFile).toBeUndefined();
    expect(checkpoint.envelope.skippedFiles).toEqual([]);
    await checkpoint.close();
  });

  it('opens the one safetensors file of a folder, whatever its name', async () => {
    const checkpoint = await Checkpoint.open(folderOf({ 'weights.safetensors': smallFile('a') }));
    expect(checkpoint.files[0]?.name).toBe('weights.safetensors');
    await checkpoint.close();
    await expectError(
      () => Checkpoint.open(folderOf({ 'a.safetensors': '', 'b.safetensors': '' })),
      CONTENT,
      /holds 2 safetensors files but no model\.safetensors\.index\.json: "a\.safetensors", "b\.safetensors"\. Pass one of them/,
    );
  });

  it('says what to do without safetensors', async () => {
    await expectError(
      () => Checkpoint.open(folderOf({ 'pytorch_model.bin': '' })),
      CONTENT,
      /but pytorch_model\.bin\. Convert the model/,
    );
    await expectError(() => Checkpoint.open(folderOf({ 'x.gguf': '' })), CONTENT, /but x\.gguf\. Convert/);
    await expectError(
      () => Checkpoint.open(folderOf({ 'readme.md': '' })),
      CONTENT,
      /has no safetensors file\. Expected model\.safetensors/,
    );
    await expectError(() => Checkpoint.open(freshPath()), 'ERR_IO', /does not exist/);
    await expectError(
      () => Checkpoint.open('/dev/null'),
      'ERR_IO',
      /\.safetensors file or a model folder, got a device/,
    );
    const folder = folderOf({ [INDEX]: '{}' });
    await expectError(() => Checkpoint.open(join(folder, INDEX)), CONTENT, /Pass the folder itself/);
    fs.mkdirSync(join(folder, 'model.safetensors'));
    await expectError(() => Checkpoint.open(folder), FORMAT, /has none/);
  });

  const A = smallFile('a');
  const plain = { 'a.safetensors': A, 'b.safetensors': smallFile('b') };
  it.each<[unknown, RegExp]>([
    ['{', /\/model\/model\.safetensors\.index\.json: not valid JSON: .*\(byte 1\)/],
    ['[]', /to be a JSON object/],
    ['{}', /the index has none/],
    ['{"weight_map":[]}', /an object from tensor names/],
    ['{"weight_map":{}}', /at least one tensor/],
    ['{"weight_map":{"a":1}}', /a shard name for tensor "a"/],
    ['{"weight_map":{"a":"a.safetensors"},"weight_map":{}}', /every key once/],
    ['{"weight_map":{"a":"a.safetensors","a":"b.safetensors"}}', /every key once/],
    [{ a: '../a.safetensors' }, /"\.\.\/a\.safetensors" of tensor "a" is refused: it is a path/],
    [{ a: '/etc/a.safetensors' }, /it is a path/],
    [{ a: 'sub/a.safetensors' }, /it is a path/],
    [{ a: '..\\a.safetensors' }, /it is a path/],
    [{ a: 'C:a.safetensors' }, /it is a path/],
    [{ a: 'a.safetensors\0' }, /control characters/],
    [{ a: '\u001b[2Ja.safetensors' }, /"\\u001b\[2Ja\.safetensors" .* control characters/],
    [{ a: '..' }, /does not end in \.safetensors/],
    [{ a: '' }, /does not end/],
    [{ a: 'config.json' }, /does not end/],
    [{ a: '.safetensors' }, /begins with a dot/],
    [{ a: `${'x'.repeat(250)}.safetensors` }, /longer than a file name/],
    [
      { a: 'a.safetensors', c: 'c.safetensors', d: 'd.safetensors' },
      /"c\.safetensors", "d\.safetensors" are missing: 2 of 3 shards\. The download/,
    ],
    [{ a: 'a.safetensors', b: 'a.safetensors' }, /tensor "b" should be in a\.safetensors, but no shard has it/],
    [{ a: 'b.safetensors', b: 'a.safetensors' }, /tensor "a" should be in b\.safetensors, but it is in a\.safetensors/],
    [{ b: 'two.safetensors' }, /does not name "a2" of two\.safetensors/],
    [{ a: 'a.safetensors', b: 'same.safetensors' }, /\/model\/same\.safetensors: tensor "a" is in a\.safetensors too/],
  ])('refuses the index %#: %.70j', async (map, pattern) => {
    const text = typeof map === 'string' ? map : index(map);
    const folder = folderOf({
      ...plain,
      [INDEX]: text,
      'two.safetensors': smallFile('b', 'a2'),
      'same.safetensors': smallFile('b', 'a'),
    });
    await expectError(() => Checkpoint.open(folder), FORMAT, pattern);
  });

  it('bounds shards, index and config', async () => {
    const many = Object.fromEntries(Array.from({ length: 1_001 }, (_, i) => [`t${i}`, `${i}.safetensors`]));
    await expectError(() => Checkpoint.open(folderOf({ [INDEX]: index(many) })), FORMAT, /at most 1000 shards/);
    const folder = folderOf({ 'model.safetensors': A, 'config.json': '' });
    fs.truncateSync(join(folder, 'config.json'), 17 * 2 ** 20);
    await expectError(
      () => Checkpoint.open(folder),
      FORMAT,
      /config\.json: the file has 17825792 bytes; at most 16777216 are read/,
    );
    const large = folderOf({ [INDEX]: '' });
    fs.truncateSync(join(large, INDEX), 2 ** 31);
    await expectError(() => Checkpoint.open(large), FORMAT, /at most 33554432 are read/);
    fs.truncateSync(join(large, INDEX), 2 ** 28);
    fs.writeFileSync(join(large, 's.safetensors'), '');
    fs.truncateSync(join(large, 's.safetensors'), 2 ** 33);
    await expectError(() => Checkpoint.open(large), FORMAT, /at most 134217728 are read/);
  });

  it('bounds the tensors of all shards together by what the shards hold', async () => {
    const name = 's.safetensors';
    const many = Object.fromEntries(Array.from({ length: SMALL_TENSORS + 1 }, (_, i) => [i.toString(36), name]));
    const folder = folderOf({ [INDEX]: index(many), [name]: A });
    const refusal = /index\.json: expected at most 200000 tensors in "weight_map", for shards of \d+ bytes/;
    await expectError(() => Checkpoint.open(folder), FORMAT, refusal);
    fs.truncateSync(join(folder, name), 4096 * (SMALL_TENSORS + 1)); // the index is read now, and then the shard
    await expectError(() => Checkpoint.open(folder), FORMAT, /s\.safetensors: .* the file has \d+ bytes/);
    expect([0, 4096 * (SMALL_TENSORS + 1), 1e12].map(mostTensors)).toEqual([
      SMALL_TENSORS,
      SMALL_TENSORS + 1,
      1_000_000,
    ]);
  });

  it.each<[string, RegExp]>([
    ['[]', /\/model\/config\.json: expected a JSON object/],
    ['null', /a JSON object/],
    ['{"a":1,"a":1}', /\/model\/config\.json: not valid JSON/],
    ['', /got the end of the text/],
    ['['.repeat(1e6), /at most 64 levels/],
  ])('refuses the config %.20j', (text, pattern) =>
    expectError(() => Checkpoint.open(folderOf({ 'model.safetensors': A, 'config.json': text })), FORMAT, pattern),
  );

  it('does not take a config that cannot be read for none', async () => {
    const folder = folderOf({ 'model.safetensors': A });
    fs.symlinkSync('nowhere', join(folder, 'config.json'));
    await expectError(() => Checkpoint.open(folder), 'ERR_IO', /config\.json\. It does not exist/);
  });

  it('refuses a folder that is no model but a disk', async () => {
    const folder = folderOf({ 'model.safetensors': A });
    for (let i = 0; i <= 20_000; i++) fs.closeSync(fs.openSync(join(folder, `${i}`), 'w'));
    await expectError(() => Checkpoint.open(folder), 'ERR_IO', /at most 20000 files, got more/);
  });

  it('closes every shard when one is wrong', async () => {
    if (process.platform !== 'linux') return;
    const before = fs.readdirSync('/proc/self/fd').length;
    const folder = folderOf({
      ...plain,
      'b.safetensors': fileBytes('{'),
      [INDEX]: index({ a: 'a.safetensors', b: 'b.safetensors' }),
    });
    await expectError(() => Checkpoint.open(folder), FORMAT, /\/model\/b\.safetensors: the header is not valid JSON/);
    expect(fs.readdirSync('/proc/self/fd').length).toBe(before);
  });
});
