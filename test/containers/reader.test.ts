import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { basename, dirname } from 'node:path';
import { describe, expect, it } from 'vitest';
import { planLayout } from '../../lib/containers/safetensors/layout.js';
import { SafetensorsFile } from '../../lib/containers/safetensors/reader.js';
import { storedType } from '../../lib/containers/stored-types.js';
import { FileWriter } from '../../lib/containers/writer.js';
import { expectError, fileBytes, freshPath, randomOf, SEED, smallFile } from './helpers.js';

function written(bytes: Uint8Array, name = 'm.safetensors'): string {
  const path = freshPath(name);
  fs.writeFileSync(path, bytes);
  return path;
}

const openFiles = () => fs.readdirSync('/proc/self/fd').length;

describe('SafetensorsFile', () => {
  it('opens, reads and closes', async () => {
    const bytes = smallFile('a', 'b');
    bytes.set([1, 2, 3, 4, 5, 6, 7, 8], bytes.byteLength - 8);
    const file = await SafetensorsFile.open(written(bytes));
    expect([file.name, file.size, [...file.tensors.keys()]]).toEqual(['m.safetensors', bytes.byteLength, ['a', 'b']]);
    const { begin } = file.tensors.get('b') ?? expect.unreachable();
    const into = new Uint8Array(3);
    await file.read(begin + 1, into);
    expect([...into]).toEqual([6, 7, 8]);
    file.readSync(begin, into);
    expect([...into]).toEqual([5, 6, 7]);
    await file.read(1e15, new Uint8Array(0));
    await expectError(() => file.read(begin + 2, into), 'ERR_CHECKPOINT_FORMAT', /ends at byte \d+, 1 bytes too early/);
    await expectError(() => file.readSync(begin + 2, into), 'ERR_CHECKPOINT_FORMAT', /1 bytes too early/);
    fs.truncateSync(file.path, begin);
    await expectError(() => file.read(begin, into), 'ERR_CHECKPOINT_FORMAT', /became shorter while it was read/);
    const reading = Promise.all([file.read(0, new Uint8Array(8)), file.read(8, new Uint8Array(8))]);
    await Promise.all([file.close(), reading]);
    await file.close();
    file.closeSync();
    await expectError(() => file.read(0, into), 'ERR_CLOSED', /to be open, got a read after close/);
    await expectError(() => file.readSync(0, into), 'ERR_CLOSED', /after close/);
  });

  it('rejects an aborted read with the reason of the signal', async () => {
    const file = await SafetensorsFile.open(written(smallFile('a')));
    await expect(file.read(0, new Uint8Array(1), AbortSignal.abort())).rejects.toMatchObject({ name: 'AbortError' });
    await expect(file.read(0, new Uint8Array(1), AbortSignal.abort('mine'))).rejects.toBe('mine');
    const reading = file.read(0, new Uint8Array(8));
    file.closeSync();
    await reading;
  });

  it('refuses what is not a regular file, without waiting', async () => {
    const folder = dirname(written(smallFile('a')));
    await expectError(() => SafetensorsFile.open(folder), 'ERR_IO', /Expected a file, got a folder/);
    await expectError(
      () => SafetensorsFile.open(`${folder}/none`),
      'ERR_IO',
      /Cannot read .*none\. It does not exist\. Check the path/,
    );
    await expectError(() => SafetensorsFile.open(`${folder}/m.safetensors/x`), 'ERR_IO', /is a file, not a folder/);
    await expectError(() => SafetensorsFile.open(`${folder}/no\nne\u001b[2J`), 'ERR_IO', /no\\u000ane\\u001b\[2J/);
    if (process.platform === 'win32') return;
    execFileSync('mkfifo', [`${folder}/pipe`]);
    await expectError(() => SafetensorsFile.open(`${folder}/pipe`), 'ERR_IO', /got a named pipe/);
    await expectError(() => SafetensorsFile.open('/dev/zero'), 'ERR_IO', /got a device/);
    fs.symlinkSync('loop', `${folder}/loop`);
    await expectError(() => SafetensorsFile.open(`${folder}/loop`), 'ERR_IO', /lead in a circle/);
  });

  it('refuses hostile files at once, in little memory, and leaves nothing open', async () => {
    const before = process.platform === 'linux' ? openFiles() : 0;
    const sparse = written(fileBytes('{"', 0, 2n ** 31n - 8n));
    fs.truncateSync(sparse, 2 ** 31);
    const rss = process.memoryUsage().rss;
    const start = performance.now();
    await expectError(
      () => SafetensorsFile.open(sparse),
      'ERR_CHECKPOINT_FORMAT',
      /claims 2147483640 bytes; at most 33554432 are read/,
    );
    expect(performance.now() - start).toBeLessThan(1000);
    expect(process.memoryUsage().rss - rss).toBeLessThan(50e6);
    await expectError(
      () => SafetensorsFile.open(written(fileBytes('['.repeat(1e6)))),
      'ERR_CHECKPOINT_FORMAT',
      /begin with "\{"/,
    );
    await expectError(
      () => SafetensorsFile.open(written(fileBytes(`{"a":${'['.repeat(1e6)}`))),
      'ERR_CHECKPOINT_FORMAT',
      /not described by/,
    );
    await expectError(
      () => SafetensorsFile.open(written(Buffer.alloc(0))),
      'ERR_CHECKPOINT_FORMAT',
      /\/m\.safetensors: expected at least 8/,
    );
    await expectError(
      () => SafetensorsFile.open(written(fileBytes('{}', 1))),
      'ERR_CHECKPOINT_FORMAT',
      /nothing behind it/,
    );
    if (process.platform === 'linux') expect(openFiles()).toBe(before);
  });
});

describe('FileWriter', () => {
  const layout = planLayout([
    { name: 'a', type: storedType('U8'), shape: [10] },
    { name: 'b', type: storedType('F32'), shape: [2] },
    { name: 'e', type: storedType('U8'), shape: [0] },
  ]);

  it('demands every byte once, inside its tensor', async () => {
    const path = freshPath();
    const writer = await FileWriter.create(path, layout);
    expect(fs.statSync(path).size).toBe(layout.fileSize);
    await expectError(() => FileWriter.create(path, layout), 'ERR_IO', /Cannot create .*It exists already/);
    const bytes = new Uint8Array(4).fill(7);
    await expectError(
      () => writer.write('c', 0, bytes),
      'ERR_INVALID_ARGUMENT',
      /to have tensor "c", got no such tensor/,
    );
    await expectError(
      () => writer.write('a', 7, bytes),
      'ERR_INVALID_ARGUMENT',
      /bytes from 0 to 10, got bytes 7 to 11 of tensor "a"/,
    );
    await expectError(() => writer.write('a', -1, bytes), 'ERR_INVALID_ARGUMENT', /got bytes -1/);
    await expectError(() => writer.write('a', 0.5, bytes), 'ERR_INVALID_ARGUMENT', /got bytes 0.5/);
    await writer.write('a', 6, bytes);
    await writer.write('a', 0, bytes);
    await writer.write('a', 3, new Uint8Array(0));
    for (const offset of [0, 3, 4, 5, 6]) {
      await expectError(
        () => writer.write('a', offset, bytes),
        'ERR_INVALID_ARGUMENT',
        /every byte to be written once/,
      );
    }
    await expectError(
      () => writer.finish(),
      'ERR_INVALID_ARGUMENT',
      /every tensor to be written, got "b", "a" not or not completely/,
    );
    await writer.write('b', 0, new Uint8Array(8));
    await expectError(() => writer.finish(), 'ERR_INVALID_ARGUMENT', /got "a" not/);
    await writer.write('a', 4, bytes.subarray(0, 2));
    // All is there, and a run that is killed now must leave nothing that opens.
    await expectError(
      () => SafetensorsFile.open(path),
      'ERR_CHECKPOINT_FORMAT',
      /claims 0 bytes\. The file was not written to its end/,
    );
    await writer.finish();
    await (await SafetensorsFile.open(path)).close();
    await expectError(() => writer.write('a', 0, bytes), 'ERR_INVALID_ARGUMENT', /after finish or abandon/);
    await writer.abandon();
    expect([...fs.readFileSync(path).subarray(-10)]).toEqual(new Array(10).fill(7));
  });

  it('waits for writes under way when it is finished, and lets no other begin', async () => {
    const path = freshPath();
    const writer = await FileWriter.create(path, layout);
    const writing = writer.write('a', 0, new Uint8Array(10).fill(7));
    // A write that began now would count as done, and might reach the file after it was closed, or another file.
    const early = expectError(() => writer.finish(), 'ERR_INVALID_ARGUMENT', /got "b" not or not completely/);
    const late = [
      () => writer.write('b', 0, new Uint8Array(8)),
      () => writer.writePieces('b', [{ at: 0, count: 8 }], new Uint8Array(8), new AbortController().signal),
      () => writer.finish(),
    ].map((call) => expectError(call, 'ERR_INVALID_ARGUMENT', /nothing to begin while finish is under way/));
    await Promise.all([early, writing, ...late]);
    await Promise.all([writer.write('b', 0, new Uint8Array(8)), writer.finish()]);
    expect([...fs.readFileSync(path).subarray(-10)]).toEqual(new Array(10).fill(7));
  });

  it('closes when abandoned, with writes under way too', async () => {
    const path = freshPath();
    const writer = await FileWriter.create(path, layout);
    const writing = writer.write('a', 0, new Uint8Array(10));
    await Promise.all([writer.abandon(), writing]);
    await writer.abandon();
    await expectError(() => writer.finish(), 'ERR_INVALID_ARGUMENT', /after finish or abandon/);
  });

  it('notices a full disk before the work, and leaves nothing', async () => {
    const path = freshPath();
    const huge = planLayout([{ name: 'a', type: storedType('U8'), shape: [2 ** 49] }]);
    await expectError(
      () => FileWriter.create(path, huge),
      'ERR_IO',
      /needs 563 TB, .* has \d\S* \wB free\. Free space/,
    );
    expect(fs.existsSync(path)).toBe(false);
    await expectError(() => FileWriter.create(`${path}/x/y`, layout), 'ERR_IO', /does not exist/);
  });

  it(`writes what the reader reads (HQQ_TEST_SEED=${SEED})`, async () => {
    const random = randomOf(SEED);
    const dtypes = ['F64', 'F32', 'BF16', 'I32', 'U8'] as const;
    for (let round = 0; round < 30; round++) {
      const specs = Array.from({ length: 1 + random(8) }, (_, i) => ({
        name: `t${i}`,
        type: storedType(dtypes[random(5)] ?? 'U8'),
        shape: [random(40), random(4)],
      }));
      const path = freshPath();
      const plan = planLayout(specs, { round: String(round) }, basename(path));
      const writer = await FileWriter.create(path, plan);
      const contents = new Map<string, Uint8Array>();
      const pieces: (readonly [string, number, Uint8Array])[] = [];
      for (const { name, begin, end } of plan.entries.values()) {
        const bytes = Uint8Array.from({ length: end - begin }, () => random(256));
        contents.set(name, bytes);
        for (let at = 0; at < bytes.byteLength; ) {
          const piece = bytes.subarray(at, at + 1 + random(100));
          pieces.push([name, at, piece]);
          at += piece.byteLength;
        }
      }
      pieces.sort(() => random(3) - 1);
      await Promise.all(pieces.map((piece) => writer.write(...piece)));
      await writer.finish();
      const file = await SafetensorsFile.open(path);
      expect(file.tensors).toEqual(plan.entries);
      expect(file.metadata.get('round')).toBe(String(round));
      for (const [name, expected] of contents) {
        const { begin } = file.tensors.get(name) ?? expect.unreachable();
        const got = new Uint8Array(expected.byteLength);
        await file.read(begin, got);
        expect(Buffer.compare(got, expected)).toBe(0);
      }
      await file.close();
    }
  });
});
