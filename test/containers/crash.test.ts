import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { dirname, join } from 'node:path';
import ts from 'typescript';
import { beforeAll, describe, expect, it } from 'vitest';
import { StagedOutput } from '../../lib/files/staged-output.js';
import { expectError, folderOf, freshPath, SCRATCH } from './helpers.js';
import { beside, content, force, none, stageFolder } from './staged.js';

describe('after a crash', () => {
  const build = join(SCRATCH, 'build');
  beforeAll(() => {
    // The sources as JavaScript, for a child that can be killed.
    const lib = join(import.meta.dirname, '../../lib');
    fs.mkdirSync(build, { recursive: true });
    fs.writeFileSync(join(build, 'package.json'), '{"type":"module"}');
    const options = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
    for (const folder of ['messages', 'files']) {
      fs.mkdirSync(join(build, folder));
      for (const name of fs.readdirSync(join(lib, folder))) {
        const text = fs.readFileSync(join(lib, folder, name), 'utf8');
        const { outputText } = ts.transpileModule(text, { compilerOptions: options });
        fs.writeFileSync(join(build, folder, name.replace(/\.ts$/, '.js')), outputText);
      }
    }
  });

  /** Runs `body` in a child until it prints; returns the child. */
  async function child(
    target: string,
    body: string,
  ): Promise<{ readonly pid: number; readonly kill: () => Promise<void> }> {
    const script = `
      import fsPromises from 'node:fs/promises';
      import { syncBuiltinESMExports } from 'node:module';
      import { StagedOutput } from ${JSON.stringify(join(build, 'files/staged-output.js'))};
      const target = ${JSON.stringify(target)};
      const hang = () => { console.log('ready'); return new Promise(() => setInterval(() => {}, 1000)); };
      ${body}`;
    const running = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = new Promise<void>((resolve) => running.once('exit', () => resolve()));
    await Promise.race([new Promise((resolve) => running.stdout.once('data', resolve)), ended]);
    expect(running.exitCode).toBeNull();
    const kill = async () => {
      running.kill('SIGKILL');
      await ended;
    };
    return { pid: running.pid ?? expect.unreachable(), kill };
  }

  it('the next run clears the half-written output, and leaves that of a live run alone', async () => {
    const target = freshPath();
    const body = `
      const staged = await StagedOutput.begin(target, 'folder', { inputs: [] });
      await staged.writeFile('sub/half', 'x'.repeat(1e6));
      await hang();`;
    const { pid, kill } = await child(target, body);
    const live = await stageFolder(target, 'new');
    expect(beside(target)).toEqual([`x.${pid}.partial`, `x.${process.pid}.partial`].sort());
    await live.abandon();
    await kill();
    expect(beside(target)).toEqual([`x.${pid}.partial`]);
    const staged = await stageFolder(target, 'new');
    expect(beside(target)).toEqual([`x.${process.pid}.partial`]);
    await staged.commit();
    expect([beside(target), content(target)]).toEqual([['x'], { 'config.json': 'new' }]);
  });

  it('between the two renames, the next run puts the old folder back', async () => {
    const target = folderOf({ 'config.json': 'old' });
    const body = `
      const staged = await StagedOutput.begin(target, 'folder', { inputs: [], force: true });
      await staged.writeFile('config.json', 'new');
      const { rename } = fsPromises;
      fsPromises.rename = (from, to) => (from === staged.path ? hang() : rename(from, to));
      syncBuiltinESMExports();
      await staged.commit();`;
    const { pid, kill } = await child(target, body);
    await kill();
    expect(beside(target)).toEqual([`model.${pid}.partial`, `model.${pid}.replaced.partial`]);
    await expectError(() => StagedOutput.begin(target, 'folder', none), 'ERR_IO', /exists\. Pass --force/);
    expect([beside(target), content(target)]).toEqual([['model'], { 'config.json': 'old' }]);
  });

  it('after both renames, the next run removes the old folder', async () => {
    const target = folderOf({ 'config.json': 'new' });
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    fs.cpSync(target, `${target}.${dead}.replaced.partial`, { recursive: true });
    await (await stageFolder(target, 'newer', force)).abandon();
    expect([beside(target), content(target)]).toEqual([['model'], { 'config.json': 'new' }]);
  });

  it('clears what an earlier process of the same id left, and nothing that only looks alike', async () => {
    const target = freshPath();
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    const keep = [
      'x.1.partial',
      'x.partial',
      'x.abc.partial',
      `y.${dead}.partial`,
      `x.${dead}.partial.txt`,
      `x.${process.pid}-99.partial`,
      `xx.${dead}.partial`,
    ];
    for (const name of [...keep, `x.${process.pid}.partial`, `x.${dead}.partial`, `x.${dead}-3.partial`])
      fs.writeFileSync(join(dirname(target), name), '');
    await (await StagedOutput.begin(target, 'file', none)).abandon();
    expect(beside(target)).toEqual(keep.sort());
  });
});
