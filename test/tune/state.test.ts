import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { formatMark, OWN_RUN } from '../../lib/files/run-mark.js';
import type { Planned } from '../../lib/tune/records.js';
import { TuneState } from '../../lib/tune/state.js';
import { failure, freshPath } from '../support/checkpoints.js';

const TEXTS = { texts: [Uint32Array.of(1, 2, 3), Uint32Array.of(4, 5)], trained: 1 };

const LAYER = { codes: 8, groups: 2, inputs: 4 };
const PLANNED: Planned = { blocks: 2, layers: new Map([['w', LAYER]]) };

const open = (folder: string, run: string, restart: boolean) => TuneState.open(folder, run, restart, PLANNED);

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
    const state = await open(folder, 'run', false);
    for (const [run, restart] of [
      ['run', false],
      ['other', false],
      ['run', true],
    ] as const) {
      const error = await failure(() => open(folder, run, restart));
      expect(error.code).toBe('ERR_IO');
      expect(error.message).toMatch(/Another run is tuning into .*q\.tune/);
    }
    await state.keepTexts(TEXTS);
    await state.close();
    await state.close();
    expect(readdirSync(folder).sort()).toEqual(['state.json', 'texts.bin']);
    const again = await open(folder, 'run', false);
    expect(await again.texts()).toEqual(TEXTS);
    await again.remove();
    expect(existsSync(folder)).toBe(false);
  });

  test('is taken from a run that has ended, and not from one that may go on elsewhere', async () => {
    const ended = formatMark({ ...OWN_RUN, pid: 2 ** 31 - 1 });
    await (await open(folderOf({ lock: ended }), 'run', false)).remove();
    const elsewhere = folderOf({ lock: formatMark({ ...OWN_RUN, machine: '0', space: 'abc' }) });
    const error = await failure(() => open(elsewhere, 'run', false));
    expect(error.message).toMatch(/Another run is tuning into .*if it has ended, remove .*lock/);
    expect(readdirSync(elsewhere)).toEqual(['lock']);
  });

  test('is not left where nothing was done', async () => {
    const folder = freshPath('q.tune');
    await (await open(folder, 'run', false)).close();
    expect(existsSync(folder)).toBe(false);
  });

  test('is left alone where it holds something else, also when it is to begin anew', async () => {
    const folder = folderOf({ 'state.json': '{"mine":true}', 'thesis.txt': 'x' });
    const error = await failure(() => open(folder, 'run', true));
    expect(error.code).toBe('ERR_IO');
    expect(error.message).toMatch(/Expected nothing at .*q\.tune.*thesis\.txt/);
    expect(readdirSync(folder)).toEqual(['state.json', 'thesis.txt']);
  });

  test('begins anew over an index that is damaged, when it is asked to', async () => {
    const folder = folderOf({ 'state.json': '{"version":', 'block-0.bin': 'x' });
    const error = await failure(() => open(folder, 'run', false));
    expect(error.code).toBe('ERR_CHECKPOINT_FORMAT');
    expect(error.message).toMatch(/state\.json to be the state of a run.*--tune-restart/);
    const state = await open(folder, 'run', true);
    expect(readdirSync(folder)).not.toContain('block-0.bin');
    await state.remove();
    expect(existsSync(folder)).toBe(false);
  });

  test('of another version is said to be one, not to be damaged', async () => {
    const index = {
      version: 1,
      key: 'a',
      lengths: [3, 2],
      trained: 1,
      blocks: [{ layers: [{ weight: 'w' }] }],
      sums: {},
    };
    const error = await failure(() => open(folderOf({ 'state.json': JSON.stringify(index) }), 'run', false));
    expect(error.code).toBe('ERR_CHECKPOINT_FORMAT');
    expect(error.message).toMatch(/got that of another version of hqq\. restart \(--tune-restart\)/);
  });

  test('keeps what was put there meanwhile when the run is done', async () => {
    const folder = freshPath('q.tune');
    const state = await open(folder, 'run', false);
    await state.keepTexts(TEXTS);
    writeFileSync(join(folder, 'thesis.txt'), 'x');
    await state.remove();
    expect(readdirSync(folder)).toEqual(['thesis.txt']);
  });
});

describe('a state', () => {
  /** That of one block of one layer. */
  async function begun(): Promise<string> {
    const folder = freshPath('q.tune');
    const state = await open(folder, 'run', false);
    await state.keepTexts(TEXTS);
    await (await state.createStream('codes', 1, 4)).close();
    const chosen = { scale: Float32Array.of(1, 2), zero: Float32Array.of(3, 4), codes: new Uint8Array(8).fill(3) };
    await state.keepBlock([{ weight: 'w', importance: undefined, chosen, solver: false, reached: true }], {
      before: 2,
      after: NaN,
    });
    await state.close();
    return folder;
  }

  test('is read again as it was, with an error that is no number as the one before', async () => {
    const state = await open(await begun(), 'run', false);
    expect(state.blocks).toMatchObject([{ before: 2, after: 2 }]);
    expect((await state.chosen('w'))!.zero).toEqual(Float32Array.of(3, 4));
    const error = await failure(() => state.openStream('codes', 1, 4));
    expect(error.message).toMatch(/codes-1\.bin to be the state of a run.*got 0 bytes, not 80\. restart/);
    await state.remove();
  });

  test.each<readonly [string, (saved: Any) => unknown]>([
    ['codes', ({ blocks }) => (blocks[0].layers[0].codes = 10)],
    ['groups', ({ blocks }) => (blocks[0].layers[0].groups = 3)],
    ['place', ({ blocks }) => (blocks[0].layers[0].at = 8)],
    ['weight', ({ blocks }) => (blocks[0].layers[0].weight = 'v')],
    ['importance', ({ blocks }) => (blocks[0].layers[0].importance = 4.5)],
    ['block', ({ blocks }) => (blocks[0] = null)],
    ['blocks', ({ blocks }) => blocks.push(...[1, 2].map(() => ({ ...blocks[0], layers: [] })))],
    ['error', ({ blocks }) => (blocks[0].before = null)],
    ['trained', (saved) => (saved.trained = 1e9)],
    ['trained on none', (saved) => (saved.trained = 0)],
    ['negative length', (saved) => (saved.lengths = [-5, 3])],
    ['great length', (saved) => (saved.lengths = [1e12, 3])],
    ['other lengths', (saved) => (saved.lengths = [3, 20])],
    ['model', (saved) => (saved.model = { steps: 1, before: 1, after: 1, layers: [null] })],
    ['sum', ({ sums }) => (sums['texts.bin'].sha256 = '0')],
    ['sums', (saved) => (saved.sums = {})],
  ])('whose index is another is refused: %s', async (_, change) => {
    const folder = await begun();
    const path = join(folder, 'state.json');
    const saved = JSON.parse(readFileSync(path, 'utf8')) as Any;
    change(saved);
    writeFileSync(path, JSON.stringify(saved));
    const error = await failure(() => open(folder, 'run', false));
    expect(error.code).toBe('ERR_CHECKPOINT_FORMAT');
    expect(error.message).toMatch(/to be the state of a run.*--tune-restart/);
    expect(existsSync(join(folder, 'lock'))).toBe(false);
  });

  test('whose block has other bytes, or fewer, is refused', async () => {
    for (const size of [24, 23]) {
      const folder = await begun();
      writeFileSync(join(folder, 'block-0.bin'), new Uint8Array(size));
      const error = await failure(() => open(folder, 'run', false));
      expect(error.message).toMatch(/block-0\.bin to be the state of a run/);
    }
  });
});

// biome-ignore lint/suspicious/noExplicitAny: of JSON that is damaged on purpose
type Any = any;
