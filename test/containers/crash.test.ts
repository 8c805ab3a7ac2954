import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import ts from 'typescript';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { ensureFreeSpace } from '../../lib/files/io.js';
import { asideOf, clearLeftovers, partialOf } from '../../lib/files/leftovers.js';
import { formatMark, isAlive, isOwnDisk, OWN_RUN, parseMark, type RunMark } from '../../lib/files/run-mark.js';
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
      const made = { title: 'a file', ending: '.safetensors', begins: () => true, isPart: () => false };
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

  /** The process ids of the runs that left something beside `target`. */
  const pidsBeside = (target: string) =>
    beside(target).map((name) => parseMark(name.slice(2).replace(/(\.replaced)?\.partial$/, ''))?.pid ?? name);

  it('the next run clears the half-written output, and leaves that of a live run alone', async () => {
    const target = freshPath();
    const body = `
      const staged = await StagedOutput.begin(target, 'folder', { made, inputs: [] });
      await staged.writeFile('sub/half', 'x'.repeat(1e6));
      await hang();`;
    const { pid, kill } = await child(target, body);
    const live = await stageFolder(target, 'new');
    expect(pidsBeside(target).sort()).toEqual([pid, process.pid].sort());
    await live.abandon();
    await kill();
    expect(pidsBeside(target)).toEqual([pid]);
    const staged = await stageFolder(target, 'new');
    expect(pidsBeside(target)).toEqual([process.pid]);
    await staged.commit();
    expect([beside(target), content(target)]).toEqual([['x'], { 'config.json': 'new' }]);
  });

  it('between the two renames, the next run puts the old folder back', async () => {
    const target = folderOf({ 'config.json': 'old' });
    const body = `
      const staged = await StagedOutput.begin(target, 'folder', { made, inputs: [], force: true });
      await staged.writeFile('config.json', 'new');
      const { rename } = fsPromises;
      fsPromises.rename = (from, to) => (from === staged.path ? hang() : rename(from, to));
      syncBuiltinESMExports();
      await staged.commit();`;
    const { kill } = await child(target, body);
    await kill();
    expect(beside(target).map((name) => name.replace(/\d.*\d/, '*'))).toEqual([
      'model.*.partial',
      'model.*.replaced.partial',
    ]);
    await expectError(
      () => StagedOutput.begin(target, 'folder', none),
      'ERR_IO',
      /exists\. Pass force: true \(--force\)/,
    );
    expect([beside(target), content(target)]).toEqual([['model'], { 'config.json': 'old' }]);
  });

  /** Of the same machine and boot: a run that has ended. */
  const deadRun = (): RunMark => ({ ...OWN_RUN, pid: spawnSync(process.execPath, ['-e', '']).pid, start: '1' });

  /** When a thread began, in ticks after the boot. */
  const startOf = (thread: number) => {
    const text = fs.readFileSync(`/proc/${thread}/stat`, 'latin1');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19]!;
  };

  /** Another thread of this process, which is alive. */
  const otherThread = (): RunMark => {
    if (OWN_RUN.start === '0') return { ...OWN_RUN, thread: 99 };
    const thread = fs
      .readdirSync('/proc/self/task')
      .map(Number)
      .find((id) => id !== process.pid)!;
    return { ...OWN_RUN, thread, start: startOf(thread) };
  };

  it('after both renames, the next run removes the old folder', async () => {
    const target = folderOf({ 'config.json': 'new' });
    fs.cpSync(target, asideOf(target, formatMark(deadRun())), { recursive: true });
    await (await stageFolder(target, 'newer', force)).abandon();
    expect([beside(target), content(target)]).toEqual([['model'], { 'config.json': 'new' }]);
  });

  it('clears what this thread left before, and nothing that only looks alike', async () => {
    const target = freshPath();
    const dead = formatMark(deadRun());
    const keep = [
      'x.1.partial',
      'x.partial',
      'x.abc.partial',
      `y.${dead}.partial`,
      `x.${dead}.partial.txt`,
      `x.${formatMark(otherThread())}.partial`,
      `xx.${dead}.partial`,
    ];
    const thread = formatMark({ ...deadRun(), thread: 3 });
    const clear = [partialOf('x'), `x.${dead}.partial`, `x.${thread}.partial`];
    for (const name of [...keep, ...clear]) fs.writeFileSync(join(dirname(target), name), '');
    await (await StagedOutput.begin(target, 'file', none)).abandon();
    expect(beside(target)).toEqual(keep.sort());
  });

  const elsewhere: RunMark = { ...OWN_RUN, pid: 999_999_999, machine: '0', space: 'abcdef' };

  it('what another container or machine writes stays while it gives signs of life', async () => {
    const target = freshPath();
    const [file, folder] = [elsewhere, { ...elsewhere, pid: 7 }].map((run) => partialOf(target, formatMark(run)));
    fs.writeFileSync(file!, '');
    fs.mkdirSync(folder!);
    const age = (path: string, days: number) => fs.utimesSync(path, new Date(), new Date(Date.now() - days * 864e5));
    age(file!, 6);
    await (await StagedOutput.begin(target, 'file', none)).abandon();
    expect(beside(target)).toHaveLength(2);
    age(file!, 8);
    await (await StagedOutput.begin(target, 'file', none)).abandon();
    expect(beside(target).map((name) => join(dirname(target), name))).toEqual([fs.realpathSync(folder!)]);
    const old = asideOf(target, formatMark({ ...elsewhere, pid: 7 }));
    fs.mkdirSync(old);
    age(old, 99); // an old folder is as old as it is: what its run writes counts
    await (await StagedOutput.begin(target, 'file', none)).abandon();
    expect(beside(target)).toHaveLength(2);
    age(folder!, 8);
    await expectError(() => StagedOutput.begin(target, 'file', none), 'ERR_IO', /exists and is a folder/);
    expect(beside(target)).toEqual(['x']);
  });

  it('what stays of runs elsewhere is told of, with its size, while it is there', async () => {
    const target = freshPath();
    const folder = partialOf(target, formatMark(elsewhere));
    fs.mkdirSync(join(folder, 'sub'), { recursive: true });
    fs.writeFileSync(join(folder, 'sub/half'), 'x'.repeat(2000));
    const staged = await stageFolder(target, 'new');
    const [note, ...more] = await staged.notes();
    expect(more).toEqual([]);
    expect(note).toMatch(
      /^1 half-written output of other runs for this place, 2\.00 kB, stands in .*: "x\.9.*partial"/,
    );
    expect(note).toMatch(/Its run may be at work, .*If not, remove it \(rm -r\); a run for this place does so a week/);
    const full = ensureFreeSpace(dirname(target), Number.MAX_SAFE_INTEGER, staged);
    await expectError(() => full, 'ERR_IO', /Free space there or choose another place\. 1 half-written output/);
    fs.rmSync(folder, { recursive: true });
    expect(await staged.notes()).toEqual([]);
    await staged.abandon();
    // One that is at work on this machine is no leftover.
    fs.writeFileSync(partialOf(target, formatMark(otherThread())), '');
    const other = await stageFolder(target, 'new');
    expect(await other.notes()).toEqual([]);
    await other.abandon();
  });

  it('an output that is being written is touched now and then', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'Date'], now: Date.now() + 7.2e6 });
    try {
      const staged = await stageFolder(freshPath(), 'new');
      const before = fs.statSync(staged.path).mtimeMs;
      vi.advanceTimersByTime(3.6e6);
      await vi.waitFor(() => expect(fs.statSync(staged.path).mtimeMs).toBeGreaterThan(before + 3.6e6));
      await staged.abandon();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it('judges no run that it cannot look up, and of its own kind each', async () => {
    expect(isAlive(OWN_RUN)).toBe('yes');
    expect(isAlive(deadRun())).toBe('no');
    expect(isAlive(elsewhere)).toBe('unknown');
    expect(isAlive({ ...OWN_RUN, space: '0' })).toBe('unknown');
    const { machine } = OWN_RUN;
    expect(isAlive({ ...OWN_RUN, space: 'abcdef' })).toBe(machine === '0' ? 'unknown' : 'unlikely'); // an earlier boot, or a clone
    // An earlier boot of what is no installation of its own: a container.
    const earlier = { ...elsewhere, boot: 'abcdef' };
    expect([isAlive(earlier, false), isAlive(earlier, true)]).toEqual([
      'unknown',
      OWN_RUN.boot === '0' ? 'unknown' : 'unlikely',
    ]);
    expect(isAlive({ ...elsewhere, boot: '0' }, true)).toBe('unknown');
    expect(isAlive(elsewhere, true)).toBe('unknown'); // another container of this boot
    // As where there is no /proc: machines of one name have one space.
    expect(isAlive({ ...deadRun(), start: '0' })).toBe('unlikely');
  });

  it('what names alone tell of stays for half an hour after its last sign of life', async () => {
    const target = freshPath();
    const partial = partialOf(target, formatMark({ ...deadRun(), start: '0' }));
    for (const [minutes, left] of [
      [20, 1],
      [40, 0],
    ] as const) {
      fs.writeFileSync(partial, '');
      fs.utimesSync(partial, new Date(), new Date(Date.now() - minutes * 6e4));
      await (await StagedOutput.begin(target, 'file', none)).abandon();
      expect(beside(target)).toHaveLength(left);
    }
  });

  it.runIf(OWN_RUN.boot !== '0' && isOwnDisk(SCRATCH))(
    'a container of an earlier boot left it: half an hour',
    async () => {
      const target = freshPath();
      const partial = partialOf(target, formatMark({ ...elsewhere, boot: 'abcdef' }));
      for (const [minutes, left] of [
        [20, 1],
        [40, 0],
      ] as const) {
        fs.writeFileSync(partial, '');
        fs.utimesSync(partial, new Date(), new Date(Date.now() - minutes * 6e4));
        const staged = await StagedOutput.begin(target, 'file', none);
        if (left === 1) expect((await staged.notes())[0]).toMatch(/does so half an hour after the last sign of life/);
        await staged.abandon();
        expect(beside(target)).toHaveLength(left);
      }
    },
  );

  it('of two runs that find the same old folder, the slower takes it for restored', async () => {
    const target = folderOf({ 'config.json': 'old' });
    fs.renameSync(target, asideOf(target, formatMark(deadRun())));
    const clear = () => clearLeftovers(target, () => false);
    await Promise.all(Array.from({ length: 8 }, clear));
    expect([beside(target), content(target)]).toEqual([['model'], { 'config.json': 'old' }]);
  });

  it.each([
    ['ASCII', 'm'.repeat(255)],
    ['others', `${'é'.repeat(120)}.safetensor`],
  ])('a name as long as names may be: %s', async (_, name) => {
    const target = join(folderOf({}), name);
    const dead = [partialOf, asideOf].map((nameOf) => nameOf(target, formatMark(deadRun())));
    const alike = partialOf(`${target.slice(0, -1)}X`, formatMark(deadRun()));
    for (const path of [...dead, alike]) fs.mkdirSync(path);
    fs.mkdirSync(target);
    await (await stageFolder(target, 'new', force)).commit();
    expect(fs.readdirSync(dirname(target)).sort()).toEqual([basename(alike), name].sort());
    expect(content(target)).toEqual({ 'config.json': 'new' });
  });

  it.runIf(OWN_RUN.start !== '0')('a process id that was given again, and a zombie, are dead', async () => {
    expect(isAlive({ ...OWN_RUN, start: '1' })).toBe('no');
    expect(isAlive({ ...OWN_RUN, pid: process.ppid, start: '1' })).toBe('no');
    const parentRun = { ...OWN_RUN, pid: process.ppid, thread: process.ppid, start: startOf(process.ppid) };
    expect(isAlive(parentRun)).toBe('yes');
    // What became a `sleep` never waits for the child that it had as a shell.
    const parent = spawn('sh', ['-c', 'sleep 1 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      const pid = Number(await new Promise((resolve) => parent.stdout.once('data', resolve)));
      await vi.waitFor(() => expect(fs.readFileSync(`/proc/${pid}/stat`, 'latin1')).toMatch(/\) Z /), 1e4);
      process.kill(pid, 0); // which tells nothing
      expect(isAlive({ ...OWN_RUN, pid, thread: pid, start: startOf(pid) })).toBe('no');
    } finally {
      parent.kill();
    }
  });

  it.runIf(OWN_RUN.start !== '0')('what a worker thread left that was terminated goes with the next run', async () => {
    const target = freshPath();
    const script = `
      const { StagedOutput } = await import(${JSON.stringify(pathToFileURL(join(build, 'files/staged-output.js')))});
      const made = { title: 'a file', ending: '.safetensors', begins: () => true, isPart: () => false };
      await StagedOutput.begin(${JSON.stringify(target)}, 'folder', { made, inputs: [] });
      (await import('node:worker_threads')).parentPort.postMessage('ready');
      setInterval(() => {}, 1000);`;
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`));
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await (await stageFolder(target, 'new')).abandon();
    expect(beside(target)).toHaveLength(1); // it is at work
    await worker.terminate();
    expect(beside(target)).toHaveLength(1); // nothing runs at such an end
    await (await stageFolder(target, 'new')).abandon();
    expect(beside(target)).toEqual([]);
  });
});
