import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { wrap, wrapText } from '../../lib/cli/show/columns.js';
import { hqq } from '../support/cli.js';
import { writeLlama } from '../support/models.js';
import { scratchFolder } from '../support/scratch.js';

const SCRATCH = scratchFolder('columns');
const MODEL = writeLlama(join(SCRATCH, 'llama'));

describe('wrapped text', () => {
  test('is cut between words, and a word behind a joint, or anywhere', () => {
    expect(wrapText('one two three', 13)).toEqual(['one two three']);
    expect(wrapText('one two three', 12)).toEqual(['one two', 'three']);
    expect(wrapText('one two three', 9, '  ', ' ')).toEqual([' one two', '  three']);
    expect(wrapText('model.layers.0.mlp', 10, '  ')).toEqual(['model.', '  layers.', '  0.mlp']);
    expect(wrapText('abcdefghij', 4, ' ')).toEqual(['abcd', ' efg', ' hij']);
    expect(wrap(['size 1 kB,', 'error 8 %'], 12)).toEqual(['size 1 kB,', 'error 8 %']);
    expect(wrap(['size 1 kB,', 'error 8 %'], 6)).toEqual(['size', '1 kB,', 'error', '8 %']);
  });

  test('keeps every word and every width', () => {
    const words = 'a bb ccc.dd e_f ggggggggggggg hh-ii, j'.split(' ');
    for (let width = 5; width < 50; width++) {
      for (const text of words.map((_, i) => words.slice(i).join(' '))) {
        const lines = wrapText(text, width, '  ', ' ');
        expect([width, lines.filter((line) => line.length > width)]).toEqual([width, []]);
        expect(
          lines
            .map((line) => line.trim())
            .join('')
            .replaceAll(' ', ''),
        ).toBe(text.replaceAll(' ', ''));
      }
    }
  });
});

describe.skipIf(spawnSync('script', ['-qec', 'true', '/dev/null']).status !== 0)('on a terminal', () => {
  /** What a terminal of so many columns shows; `inEnvironment` says them by `COLUMNS` alone. */
  async function shown(command: string, columns: number, inEnvironment = false): Promise<readonly string[]> {
    const size = inEnvironment ? `stty cols 200; COLUMNS=${columns}` : `stty cols ${columns};`;
    const line = `${size} $HQQ ${command} 2> /dev/null`;
    const { stdout } = await hqq([], { shell: `script -qec "${line}" /dev/null`, env: { TERM: 'xterm' } });
    return stdout
      .replaceAll('\r', '')
      .replaceAll(/\x1b\[\d+m/g, '')
      .split('\n');
  }

  // Lines to be copied, and paths above a table, are as long as they are.
  const isFree = (line: string) => line.startsWith('Next: ') || line.startsWith('/');
  let counter = 0;
  const quantize = () => `quantize '${MODEL}' --out '${join(SCRATCH, `out-${counter++}`)}' --override '*.0.*:nbits=6'`;

  test.each<[string, () => string]>([
    ['quantize', quantize],
    ['quantize --dry-run', () => `${quantize()} --dry-run`],
    ['inspect', () => `inspect '${MODEL}'`],
    ['--help', () => 'quantize --help'],
    ['general help', () => '--help'],
    ['doctor', () => 'doctor'],
  ])('%s fits into 40 columns, by the terminal or by COLUMNS', async (_, command) => {
    for (const inEnvironment of [false, true]) {
      const lines = await shown(command(), 40, inEnvironment);
      expect(lines.length).toBeGreaterThan(10);
      expect(lines.filter((line) => line.length > 40 && !isFree(line))).toEqual([]);
    }
  });

  test('a table keeps all that it says', async () => {
    const text = (await shown(quantize(), 40)).join('\n');
    expect(text).toMatch(/\n {2}worst layers\n/);
    expect(text).toMatch(
      /\n {2}model\.layers\.\d\.(mlp|self_attn)\.\w+_proj\.\n? *weight\n {4}shape \d+ x \d+,\n {4}relative error \S+ %,\n {4}mean absolute \S+, bits 4\.50\n/,
    );
    expect(text).toMatch(/\n {2}config {5}mixed\n {13}6-bit, group 64, axis 1,\n {13}solver joint: 7 tensors\n/);
  });

  test('a table that almost fits has its first column above the others', async () => {
    const lines = await shown(quantize(), 80);
    const at = lines.indexOf('  worst layers');
    expect(lines.slice(at, at + 3)).toEqual([
      '  worst layers',
      expect.stringMatching(/^ {4}shape +relative error +mean absolute +bits$/),
      expect.stringMatching(/^ {2}model\.layers\.\d\.\S+\.weight$/),
    ]);
    expect(lines[at + 3]).toMatch(/^ {4}\d+ x \d+ +\S+ % +\S+ +4\.50$/);
    expect(lines[at + 3]).toHaveLength(lines[at + 1]!.length);
  });

  test('what fits is as it is where there is no terminal', async () => {
    for (const command of [`inspect '${MODEL}'`, 'quantize --help', '--help']) {
      const { stdout } = await hqq([], { shell: `$HQQ ${command}`, env: { COLUMNS: '40' } });
      expect((await shown(command, 400)).join('\n')).toBe(stdout);
      expect(Math.max(...stdout.split('\n').map(({ length }) => length))).toBeGreaterThan(60);
    }
  });
});
