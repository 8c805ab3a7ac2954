// Draws docs/terminal.svg: what a terminal shows of the commands below, which are run for it on the model that ships with the
// repository. Needs `script` of util-linux, which gives them a terminal. `node scripts/terminal-picture.mjs`, after a build.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const COMMANDS = [
  'hqq quantize books --out books-4bit',
  "hqq generate books-4bit --prompt 'And the Lord said' --max-tokens 24",
];

const COLUMNS = 88;
const [CELL, LINE, MARGIN, TOP] = [8.4, 19, 18, 42];

/** What a command writes to a terminal of `COLUMNS` columns, without its progress. */
function output(command, cwd) {
  const [, words] = /^hqq (.*)$/.exec(command);
  const inner = `stty cols ${COLUMNS}; '${process.execPath}' '${path.join(root, 'dist', 'cli.mjs')}' ${words} 2>/dev/null`;
  const env = { ...process.env, TERM: 'xterm', NO_COLOR: '' };
  return execFileSync('script', ['-qec', inner, '/dev/null'], { cwd, env, encoding: 'utf8' }).replaceAll('\r', '');
}

const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** One line as `tspan`s: bold and dim are what the command line uses. */
function spans(line) {
  let kind = '';
  return line
    .split(/(\x1b\[\d*m)/)
    .map((piece) => {
      const [, code] = /^\x1b\[(\d*)m$/.exec(piece) ?? [];
      if (code === undefined) return kind === '' ? escaped(piece) : `<tspan class="${kind}">${escaped(piece)}</tspan>`;
      kind = { 1: 'bold', 2: 'dim' }[code] ?? '';
      return '';
    })
    .join('');
}

const work = mkdtempSync(path.join(tmpdir(), 'hqq-picture-'));
const lines = [];
try {
  cpSync(path.join(root, 'examples', 'models', 'llama-2.3m-books'), path.join(work, 'books'), { recursive: true });
  for (const command of COMMANDS) {
    lines.push(`<tspan class="prompt">$</tspan> <tspan class="bold">${escaped(command)}</tspan>`);
    lines.push(...output(command, work).trimEnd().split('\n').map(spans), '');
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
lines.pop();

const [width, height] = [Math.ceil(COLUMNS * CELL + 2 * MARGIN), TOP + lines.length * LINE + MARGIN];
const text = lines.map((line, i) => `<text x="${MARGIN}" y="${TOP + (i + 0.75) * LINE}">${line}</text>`).join('\n');
const dots = ['#ff5f57', '#febc2e', '#28c840'].map(
  (fill, i) => `<circle cx="${24 + 20 * i}" cy="21" r="6" fill="${fill}"/>`,
);
writeFileSync(
  path.join(root, 'docs', 'terminal.svg'),
  `<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>hqq quantizes a language model and goes on with a text</title>
<style>
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d8dee9; white-space: pre; }
.bold { font-weight: 700; fill: #ffffff; }
.dim { fill: #8a94a6; }
.prompt { fill: #7fd88f; }
</style>
<rect width="${width}" height="${height}" rx="10" fill="#1b1f2a"/>
${dots.join('')}
${text}
</svg>
`,
);
