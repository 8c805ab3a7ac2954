import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { formatMark, OWN_RUN } from '../../lib/files/run-mark.js';
import { TuneState } from '../../lib/tune/state.js';
import { failure, freshPath } from '../support/checkpoints.js';

const TEXTS = { texts: [Uint32Array.of(1, 2, 3), Uint32Array.of(4, 5)], trained: 1 };

/** A folder with files in it. */
function folderOf(files: Readonly<Record<string, string>>): string {
  const folder = freshPath('q.tune');
  mkdirSync(folder);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

describe('the folder of a state', () => {
  test('is that of one run at a time', async () => {
    const folder = freshPath('q.tune');
    const state = await TuneState.open(folder, 'run', false);
    for (const [run, restart] of [
      ['run', false],
      ['other', false],
      ['run', true],
    ] as const) {
      const error = await failure(() => TuneState.open(folder, run, restart));
      expect(error.code).toBe('ERR_IO');
      expect(error.message).toMatch(/Another run is tuning into .*q\.tune/);
    }
    await state.keepTexts(TEXTS);
    await state.close();
    await state.close();
    expect(readdirSync(folder).sort()).toEqual(['state.json', 'texts.bin']);
    const again = await TuneState.open(folder, 'run', false);
    expect(await again.texts()).toEqual(TEXTS);
    await again.remove();
    expect(existsSync(folder)).toBe(false);
  });

  test('is taken from a run that has ended, and not from one that may go on elsewhere', async () => {
    const ended = formatMark({ ...OWN_RUN, pid: 2 ** 31 - 1 });
    await (await TuneState.open(folderOf({ lock: ended }), 'run', false)).remove();
    const elsewhere = folderOf({ lock: formatMark({ ...OWN_RUN, machine: '0', space: 'abc' }) });
    const error = await failure(() => TuneState.open(elsewhere, 'run', false));
    expect(error.message).toMatch(/Another run is tuning into .*if it has ended, remove .*lock/);
    expect(readdirSync(elsewhere)).toEqual(['lock']);
  });

  test('is not left where nothing was done', async () => {
    const folder = freshPath('q.tune');
    await (await TuneState.open(folder, 'run', false)).close();
    expect(existsSync(folder)).toBe(false);
  });

  test('is left alone where it holds something else, also when it is to begin anew', async () => {
    const folder = folderOf({ 'state.json': '{"mine":true}', 'thesis.txt': 'x' });
    const error = await failure(() => TuneState.open(folder, 'run', true));
    expect(error.code).toBe('ERR_IO');
    expect(error.message).toMatch(/Expected nothing at .*q\.tune.*thesis\.txt/);
    expect(readdirSync(folder)).toEqual(['state.json', 'thesis.txt']);
  });

  test('begins anew over an index that is damaged, when it is asked to', async () => {
    const folder = folderOf({ 'state.json': '{"version":', 'block-0.bin': 'x' });
    const error = await failure(() => TuneState.open(folder, 'run', false));
    expect(error.code).toBe('ERR_CHECKPOINT_FORMAT');
    expect(error.message).toMatch(/state\.json to be the state of a run.*--tune-restart/);
    const state = await TuneState.open(folder, 'run', true);
    expect(readdirSync(folder)).not.toContain('block-0.bin');
    await state.remove();
    expect(existsSync(folder)).toBe(false);
  });

  test('keeps what was put there meanwhile when the run is done', async () => {
    const folder = freshPath('q.tune');
    const state = await TuneState.open(folder, 'run', false);
    await state.keepTexts(TEXTS);
    writeFileSync(join(folder, 'thesis.txt'), 'x');
    await state.remove();
    expect(readdirSync(folder)).toEqual(['thesis.txt']);
  });
});
