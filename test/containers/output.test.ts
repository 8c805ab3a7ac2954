import * as fs from 'node:fs';
import fsPromises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { partialOf } from '../../lib/files/leftovers.js';
import { StagedOutput } from '../../lib/files/staged-output.js';
import { expectError, folderOf, freshPath, SCRATCH, smallFile } from './helpers.js';
import { beside, content, force, none, stageFile, stageFolder } from './staged.js';

const OPTION = 'ERR_INVALID_OPTION';

describe('a file', () => {
  it('appears whole, at commit', async () => {
    const target = freshPath();
    const staged = await stageFile(target, 'new');
    expect(staged.path).toBe(partialOf(join(fs.realpathSync(dirname(target)), 'x')));
    expect(beside(target)).toEqual([basename(staged.path)]);
    await staged.commit();
    await staged.abandon();
    staged.abandonSync();
    expect([beside(target), content(target)]).toEqual([['x'], 'new']);
    await expectError(() => staged.commit(), 'ERR_INVALID_ARGUMENT', /after commit or abandon/);
  });

  it('leaves nothing when abandoned', async () => {
    const target = freshPath();
    await (await stageFile(target, 'new')).abandon();
    (await stageFile(target, 'new')).abandonSync();
    expect(beside(target)).toEqual([]);
  });

  it('replaces a file only when forced', async () => {
    const target = freshPath();
    const old = smallFile('a');
    fs.writeFileSync(target, old);
    await expectError(
      () => StagedOutput.begin(target, 'file', none),
      'ERR_IO',
      /x exists\. Pass force: true \(--force\) to replace it\.$/,
    );
    const staged = await stageFile(target, 'new', force);
    expect(fs.readFileSync(target)).toEqual(old);
    await staged.commit();
    expect([beside(target), content(target)]).toEqual([['x'], 'new']);
  });

  it.each(['notes', 'more than nine bytes of notes'])('never replaces a file that is no model: "%s"', async (text) => {
    const target = freshPath();
    fs.writeFileSync(target, text);
    await expectError(
      () => StagedOutput.begin(target, 'file', force),
      'ERR_IO',
      /x exists and is not a safetensors file/,
    );
    expect(content(target)).toBe(text);
    fs.writeFileSync(target, '');
    await (await stageFile(target, 'new', force)).commit();
    expect(content(target)).toBe('new');
  });

  it('does not replace what appeared meanwhile', async () => {
    const target = freshPath();
    const staged = await stageFile(target, 'mine');
    fs.writeFileSync(target, 'theirs');
    await expectError(() => staged.commit(), 'ERR_IO', /x appeared meanwhile\. Pass force: true \(--force\)/);
    await staged.abandon();
    expect([beside(target), content(target)]).toEqual([['x'], 'theirs']);
  });

  it('never replaces a folder, a link or a device; nor a folder a file', async () => {
    const folder = folderOf({ 'config.json': '{}' });
    await expectError(
      () => StagedOutput.begin(folder, 'file', force),
      'ERR_IO',
      /exists and is a folder, but the output is a file/,
    );
    const file = freshPath();
    fs.writeFileSync(file, '');
    await expectError(
      () => StagedOutput.begin(file, 'folder', force),
      'ERR_IO',
      /exists and is a file, but the output is a folder/,
    );
    const link = freshPath();
    fs.symlinkSync(file, link);
    await expectError(() => StagedOutput.begin(link, 'file', force), 'ERR_IO', /is a symbolic link/);
    await expectError(() => StagedOutput.begin('/dev/null', 'file', force), 'ERR_IO', /is a device/);
    const staged = await stageFile(freshPath(), 'x', force);
    fs.mkdirSync(staged.target);
    await expectError(() => staged.commit(), 'ERR_IO', /is a folder/);
    await staged.abandon();
  });

  it('is written once at a time by a process', async () => {
    const target = freshPath();
    const staged = await stageFile(target, 'new');
    await expectError(() => StagedOutput.begin(target, 'file', force), 'ERR_IO', /being written by this process/);
    expect(content(staged.path)).toBe('new');
    await staged.abandon();
    await (await stageFile(target, 'new')).abandon();
  });
});

describe('a folder', () => {
  it('appears whole, at commit, with sub-folders and copies', async () => {
    const target = freshPath();
    const source = freshPath();
    fs.writeFileSync(source, 'a'.repeat(3_000_001), { mode: 0o400 });
    fs.writeFileSync(`${source}.empty`, '');
    const staged = await stageFolder(target, '{}');
    await staged.copyFile(source, 'sub/deep/copy.txt');
    await staged.copyFile(`${source}.empty`, 'empty');
    await staged.writeFile('bytes', new Uint8Array([65]));
    expect(fs.existsSync(target)).toBe(false);
    await staged.commit();
    expect(content(target)).toEqual({
      bytes: 'A',
      'config.json': '{}',
      empty: '',
      sub: { deep: { 'copy.txt': 'a'.repeat(3_000_001) } },
    });
    expect(fs.statSync(join(target, 'sub/deep/copy.txt')).mode & 0o200).toBe(0o200);
    expect(beside(target)).toEqual(['x']);
  });

  it('takes paths inside of it only, each once', async () => {
    const staged = await stageFolder(freshPath(), '{}');
    for (const path of ['', '.', '..', '../x', 'a/../../x', '/etc/x', 'a\0b']) {
      await expectError(
        () => staged.writeFile(path, ''),
        'ERR_INVALID_ARGUMENT',
        /Expected a path inside the output folder/,
      );
    }
    await expectError(() => staged.writeFile('config.json', ''), 'ERR_IO', /exists already/);
    await expectError(() => staged.copyFile(SCRATCH, 'x'), 'ERR_IO', /Expected a file, got a folder/);
    await expect(staged.copyFile(join(staged.path, 'config.json'), 'y', AbortSignal.abort())).rejects.toMatchObject({
      name: 'AbortError',
    });
    await staged.abandon();
    await expectError(() => staged.writeFile('z', ''), 'ERR_INVALID_ARGUMENT', /after commit or abandon/);
  });

  it('replaces a model folder or an empty one when forced, nothing else', async () => {
    const shards = {
      'model-00001-of-00002.safetensors': '',
      'model-00002-of-00002.safetensors': '',
      'onnx/config.json': '{}',
    };
    for (const old of [{ 'config.json': 'old', 'model.safetensors': '' }, { 'x.safetensors': '' }, shards, {}]) {
      const target = folderOf(old);
      await expectError(
        () => StagedOutput.begin(target, 'folder', none),
        'ERR_IO',
        /exists\. Pass force: true \(--force\)/,
      );
      await (await stageFolder(target, 'new', force)).commit();
      expect([content(target), beside(target)]).toEqual([{ 'config.json': 'new' }, ['model']]);
    }
    const precious: readonly (readonly [Record<string, string>, RegExp])[] = [
      [{ 'config.json': '{}', 'src/thesis.txt': '' }, /no \*\.safetensors/],
      [{ 'loose.safetensors': '', 'other-model/model.safetensors': '' }, /holds other models \(in "other-model"\)/],
      [
        { 'model.safetensors': '', 'older/config.json': '', 'older/pytorch_model.bin': '' },
        /holds other models \(in "older"\)/,
      ],
      [{ 'a.safetensors': '', 'b.safetensors': '' }, /holds more than one model/],
      [{ 'model.safetensors': '', '.git/HEAD': '' }, /is a git repository/],
    ];
    for (const [files, reason] of precious) {
      const folder = folderOf(files);
      await expectError(() => StagedOutput.begin(folder, 'folder', force), 'ERR_IO', reason);
    }
    const photos = folderOf({ 'photo.jpg': '', 'sub/config.json': '' });
    await expectError(() => StagedOutput.begin(photos, 'folder', force), 'ERR_IO', /does not look like a model folder/);
    const target = freshPath();
    const staged = await stageFolder(target, 'new', force);
    fs.cpSync(photos, target, { recursive: true });
    await expectError(() => staged.commit(), 'ERR_IO', /does not look like a model folder/);
    await staged.abandon();
    expect(content(target)).toEqual(content(photos));
  });

  it('is never the home or working folder, or one that holds it', async () => {
    const home = process.env.HOME;
    const folder = folderOf({ 'config.json': '', 'home/x': '' });
    process.env.HOME = join(folder, 'home');
    try {
      await expectError(
        () => StagedOutput.begin(folder, 'folder', force),
        'ERR_IO',
        /holds your home or working folder/,
      );
      await expectError(() => StagedOutput.begin(join(folder, 'home'), 'folder', force), 'ERR_IO', /holds your home/);
    } finally {
      process.env.HOME = home;
    }
    await expectError(
      () => StagedOutput.begin(process.cwd(), 'folder', force),
      'ERR_IO',
      /holds your home or working folder/,
    );
    await expectError(() => StagedOutput.begin('..', 'folder', force), 'ERR_IO', /holds your home or working folder/);
    await expectError(() => StagedOutput.begin('/', 'folder', force), OPTION, /to be the path of a folder, got "\/"/);
    await expectError(() => StagedOutput.begin('', 'folder', force), OPTION, /got ""/);
  });

  it('does not replace what appeared meanwhile; forced, the later run wins', async () => {
    const target = freshPath();
    const staged = await stageFolder(target, 'mine');
    fs.mkdirSync(target);
    await expectError(() => staged.commit(), 'ERR_IO', /appeared meanwhile/);
    await staged.abandon();
    fs.rmdirSync(target);
    const forced = await stageFolder(target, 'mine', force);
    fs.mkdirSync(target);
    fs.writeFileSync(join(target, 'config.json'), 'theirs');
    await forced.commit();
    expect([content(target), beside(target)]).toEqual([{ 'config.json': 'mine' }, ['x']]);
  });

  describe('when a rename fails', () => {
    const { rename } = fsPromises;
    afterEach(() => {
      fsPromises.rename = rename;
      syncBuiltinESMExports();
    });
    it('puts the old one back', async () => {
      const target = folderOf({ 'config.json': 'old' });
      const staged = await stageFolder(target, 'new', force);
      fsPromises.rename = async (from, to) => {
        if (from === staged.path) throw Object.assign(new Error('EIO'), { code: 'EIO' });
        await rename(from, to);
      };
      syncBuiltinESMExports();
      await expectError(() => staged.commit(), 'ERR_IO', /Cannot put in place .*The disk reports an error/);
      await staged.abandon();
      expect([content(target), beside(target)]).toEqual([{ 'config.json': 'old' }, ['model']]);
    });
  });
});

describe.skipIf(process.platform === 'win32')('modes', () => {
  const modes = (path: string): unknown => {
    const stat = fs.statSync(path);
    const mode = (stat.mode & 0o777).toString(8);
    if (!stat.isDirectory()) return mode;
    const inner = fs.readdirSync(path).map((name) => [name, modes(join(path, name))]);
    return [mode, Object.fromEntries(inner)];
  };

  it('are those of what the output is like, file by file, with what the owner needs and the umask allows', async () => {
    const input = folderOf({ 'config.json': '{}', 'private/key.txt': '', 'run.sh': '', 'read-only': '', open: '' });
    const set = { 'config.json': 0o600, private: 0o700, 'run.sh': 0o755, 'read-only': 0o444, open: 0o666, '.': 0o750 };
    for (const [name, mode] of Object.entries(set)) fs.chmodSync(join(input, name), mode);
    const before = process.umask(0o022);
    try {
      const staged = await StagedOutput.begin(freshPath(), 'folder', { ...none, inputs: [], like: input });
      await staged.writeFile('config.json', '{}');
      await staged.writeFile('new.json', '{}');
      for (const name of ['private/key.txt', 'run.sh', 'read-only', 'open'])
        await staged.copyFile(join(input, name), name);
      expect(modes(staged.path)).toEqual(expect.arrayContaining(['750'])); // from the start
      await staged.commit();
      const files = { 'config.json': '600', 'new.json': '640', 'run.sh': '755', 'read-only': '644', open: '644' };
      expect(modes(staged.target)).toEqual(['750', { ...files, private: ['700', { 'key.txt': '644' }] }]);
      const file = await StagedOutput.begin(freshPath(), 'file', {
        ...none,
        inputs: [],
        like: join(input, 'config.json'),
      });
      expect(await file.modeOf('.')).toBe(0o600);
      await file.abandon();
    } finally {
      process.umask(before);
    }
  });

  it('are those of new files where there is nothing to be like', async () => {
    const staged = await stageFolder(freshPath(), '{}');
    await staged.commit();
    const open = (mode: number) => (mode & ~process.umask()).toString(8);
    expect(modes(staged.target)).toEqual([open(0o777), { 'config.json': open(0o666) }]);
  });
});

describe('inputs', () => {
  it('are never harmed', async () => {
    const folder = folderOf({ 'model.safetensors': 'weights', 'config.json': '{}' });
    const file = join(folder, 'model.safetensors');
    const link = freshPath('link');
    fs.symlinkSync(folder, link);
    const hard = freshPath('hard');
    fs.linkSync(file, hard);
    const refuse = (target: string, kind: 'file' | 'folder', input: string, pattern: RegExp) =>
      expectError(() => StagedOutput.begin(target, kind, { ...none, inputs: [input], force: true }), OPTION, pattern);
    await refuse(file, 'file', file, /Expected an output apart from the input, got .*which is /);
    await refuse(join(link, 'model.safetensors'), 'file', file, /which is /);
    await refuse(hard, 'file', file, /which is /);
    await refuse(hard, 'file', folder, /which is /);
    await refuse(folder, 'folder', folder, /which is /);
    await refuse(folder, 'folder', link, /which is /);
    await refuse(link, 'folder', folder, /which is /);
    await refuse(`${folder}/`, 'folder', folder, /which is /);
    await refuse(join(folder, 'out'), 'folder', folder, /which lies inside /);
    await refuse(join(link, 'out'), 'file', folder, /which lies inside /);
    await refuse(folder, 'folder', file, /which holds /);
    await refuse(dirname(folder), 'folder', folder, /which holds /);
    const linked = folderOf({});
    fs.symlinkSync(file, join(linked, 'model.safetensors'));
    fs.symlinkSync('nowhere', join(linked, 'broken'));
    fs.symlinkSync(dirname(folder), join(linked, 'up'));
    await refuse(file, 'file', linked, /which is /);
    await refuse(folder, 'folder', linked, /which holds /);
    await (await StagedOutput.begin(`${folder}-out`, 'folder', { ...none, inputs: [folder, linked] })).abandon();
    await (await StagedOutput.begin(join(folder, 'q.safetensors'), 'file', { ...none, inputs: [file] })).abandon();
    await expectError(
      () => StagedOutput.begin(freshPath(), 'file', { ...none, inputs: [freshPath()] }),
      'ERR_IO',
      /does not exist/,
    );
    expect(content(folder)).toEqual({ 'config.json': '{}', 'model.safetensors': 'weights' });
  });
});
