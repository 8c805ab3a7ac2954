import * as fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { asideOf } from '../../lib/files/leftovers.js';
import { StagedOutput } from '../../lib/files/staged-output.js';
import { expectError, folderOf, freshPath } from './helpers.js';
import { beside, content, force, none, stageFile, stageFolder } from './staged.js';

describe('the folders above', () => {
  it('are made where they are missing, and go again with what is abandoned', async () => {
    const top = freshPath('a');
    const target = join(top, 'b', 'c', 'x');
    await (await stageFolder(target, 'new')).commit();
    expect(content(top)).toEqual({ b: { c: { x: { 'config.json': 'new' } } } });
    for (const end of [(staged: StagedOutput) => staged.abandon(), (staged: StagedOutput) => staged.abandonSync()]) {
      const other = freshPath('a');
      const staged = await stageFile(join(other, 'b', 'x'), 'new');
      expect(fs.readdirSync(join(other, 'b'))).toEqual([basename(staged.path)]);
      await end(staged);
      expect(beside(other)).toEqual([]);
    }
  });

  it('stay where somebody has put something there meanwhile', async () => {
    const top = freshPath('a');
    const staged = await stageFile(join(top, 'b', 'c', 'x'), 'new');
    fs.writeFileSync(join(top, 'theirs'), '');
    await staged.abandon();
    expect(content(top)).toEqual({ theirs: '' });
  });

  it('are not made for what is refused', async () => {
    const input = folderOf({ 'config.json': '{}' });
    const inside = join(input, 'new', 'x');
    await expectError(
      () => StagedOutput.begin(inside, 'folder', { ...none, inputs: [input] }),
      'ERR_INVALID_OPTION',
      /which lies inside /,
    );
    expect(content(input)).toEqual({ 'config.json': '{}' });
    const missing = freshPath();
    const gone = { ...none, inputs: [freshPath()] };
    await expectError(() => StagedOutput.begin(join(missing, 'x'), 'file', gone), 'ERR_IO', /does not exist/);
    expect(beside(missing)).toEqual([]);
  });

  it('must be folders that may be written to', async () => {
    const file = freshPath();
    fs.writeFileSync(file, '');
    await expectError(() => StagedOutput.begin(`${file}/x`, 'file', none), 'ERR_IO', /is not a folder/);
    await expectError(() => StagedOutput.begin(`${file}/a/x`, 'file', none), 'ERR_IO', /part of the path is a file/);
    const link = freshPath('link');
    fs.symlinkSync('nowhere', link);
    await expectError(() => StagedOutput.begin(`${link}/x`, 'file', none), 'ERR_IO', /is a link that leads nowhere/);
    if (process.platform === 'linux') {
      for (const kind of ['folder', 'file'] as const) {
        for (const target of ['/proc/x', '/proc/a/x']) {
          const refusal =
            /^Cannot create \/proc\/[ax]\. (Nothing can be created in \/proc\. Choose another|Permission is denied)/;
          await expectError(() => StagedOutput.begin(target, kind, none), 'ERR_IO', refusal);
        }
      }
    }
    const folder = folderOf({});
    fs.chmodSync(folder, 0o500);
    if (process.getuid?.() === 0) return; // to whom nothing is closed
    for (const target of [join(folder, 'x'), join(folder, 'a', 'x')])
      await expectError(() => StagedOutput.begin(target, 'file', none), 'ERR_IO', /Permission is denied/);
  });
});

describe('the end of the process', () => {
  const listeners = () => process.listeners('exit');

  it('is listened for once, whatever the number of outputs, and not when there are none', async () => {
    const before = listeners();
    const staged = await Promise.all(Array.from({ length: 20 }, () => stageFile(freshPath(), 'new')));
    expect(listeners()).toHaveLength(before.length + 1);
    await Promise.all(staged.slice(0, 10).map((one) => one.commit()));
    await Promise.all(staged.slice(10, 19).map((one) => one.abandon()));
    expect(listeners()).toHaveLength(before.length + 1);
    staged[19]!.abandonSync();
    expect(listeners()).toEqual(before);
    fs.writeFileSync(staged[0]!.target, 'theirs');
    await expectError(() => StagedOutput.begin(staged[0]!.target, 'file', none), 'ERR_IO', /exists/);
    expect(listeners()).toEqual(before);
  });

  it('clears what is open then, however far it is', async () => {
    const before = listeners();
    const old = folderOf({ 'config.json': 'old' });
    const replacing = await stageFolder(old, 'new', force);
    fs.renameSync(old, asideOf(old)); // as in the middle of a commit
    const ending = await stageFolder(freshPath(), 'new');
    const [open, deep] = [await stageFile(freshPath(), 'new'), await stageFile(join(freshPath('a'), 'b', 'x'), 'new')];
    const abandoned = ending.abandon(); // has only begun
    for (const listener of listeners().filter((one) => !before.includes(one))) listener.call(process, 0);
    const gone = [open, ending, { target: dirname(dirname(deep.target)) }];
    expect(gone.map(({ target }) => beside(target))).toEqual([[], [], []]);
    expect([beside(old), content(old)]).toEqual([['model'], { 'config.json': 'old' }]);
    expect(listeners()).toEqual(before);
    await abandoned;
    await expectError(() => replacing.commit(), 'ERR_INVALID_ARGUMENT', /after commit or abandon/);
  });
});
