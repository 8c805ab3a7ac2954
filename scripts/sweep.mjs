// npm run sweep: tiny models of every class of transformers, quantized, loaded with Python's hqq and compared; writes docs/architectures.md.
//
//     npm run sweep -- --python python4 [--results FILE] [--write-only] [CLASS ...]
//
// It goes on where an earlier run was ended: delete the results to begin anew. scripts/architectures/README.md says what Python needs.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    results: { type: 'string', default: join(root, '.cache/sweep.json') },
    'write-only': { type: 'boolean', default: false },
  },
});

/** What sweep.py does, and what it does with SWEEP_RUNS=quick. */
const RUNS =
  process.env.SWEEP_RUNS === 'quick'
    ? 'in float32 quantized to 4 bits, and in bfloat16 to 8'
    : 'in float32 and in bfloat16, quantized to 8 and to 4 bits';

mkdirSync(dirname(values.results), { recursive: true });
if (!values['write-only']) {
  const script = join(root, 'scripts/architectures/sweep.py');
  const { status } = spawnSync(values.python, [script, values.results, ...positionals], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}
if (!existsSync(values.results)) throw new Error(`Expected results in ${values.results}, found none.`);
const results = Object.entries(JSON.parse(readFileSync(values.results, 'utf8'))).sort(([a], [b]) => (a < b ? -1 : 1));
writeFileSync(join(root, 'docs/architectures.md'), page(results));
const wrong = results.filter(([, { state }]) => state === 'wrong').map(([name]) => name);
console.log(`${results.length} classes; wrong: ${wrong.length === 0 ? 'none' : wrong.join(', ')}`);
process.exitCode = wrong.length === 0 ? 0 : 1;

/** The page, of classes and what became of them. */
function page(all) {
  const of = (...states) => all.filter(([, { state }]) => states.includes(state));
  const [same, loaded, told, refused] = [of('same'), of('loaded'), of('told'), of('refused')];
  const [wrong, absent] = [of('wrong'), of('not built', 'not saved', 'not loaded', 'failed')];
  const count = (list) => list.length.toLocaleString('en-US');
  return `${[
    '# Architectures',
    `What \`npm run sweep\` saw of ${count(all)} model classes of transformers 4.57.6: a tiny model with random weights of each, ${RUNS}, ` +
      "loaded in transformers with Python's hqq, and held against the model that `hqq dequantize` makes of it: keys that are missing, " +
      'unexpected or mismatched, every weight, and results, where plain inputs give any. Classes that are not below have not been tried ' +
      'so; what is quantized of them the same table says, which `hqq inspect` shows.',
    `| | classes |\n|---|---|\n| loads, results equal | ${count(same)} |\n| loads, weights equal; no results from plain inputs | ${count(loaded)} |\n` +
      `| quantized for \`hqq\` alone, as a note says | ${count(told)} |\n| refused | ${count(refused)} |\n| wrong | ${count(wrong)} |\n` +
      `| cannot be tried | ${count(absent)} |`,
    'Layers are linear modules of the tiny model; quantized, those of them that are; share, the part of all parameters that these hold. ' +
      'What stays, the summary of a run says: heads, layers whose weight is read past them, layers whose names transformers confuses.',
    ...section('Loads, results equal', same, row),
    ...section('Loads, weights equal', loaded, row),
    ...section('For `hqq` alone', told, reason),
    ...section('Refused', refused, reason),
    ...section('Wrong', wrong, (entry) => [...reason(entry).slice(0, 1), cell(entry[1].problems[0])]),
    ...section('Cannot be tried', absent, reason),
  ].join('\n\n')}\n`;
}

function section(title, entries, cells) {
  if (entries.length === 0) return [];
  const wide = cells === row;
  const head = wide ? '| class | layers | quantized | share |\n|---|---|---|---|' : '| class | why |\n|---|---|';
  return [`## ${title}`, `${head}\n${entries.map((entry) => `| ${cells(entry).join(' | ')} |`).join('\n')}`];
}

function row([name, { linear, quantized, share }]) {
  return [name, linear, quantized, share === undefined ? '-' : `${Math.round(share * 100)} %`];
}

function reason([name, { state, reason: why = '' }]) {
  return [name, cell(state === 'failed' || state.startsWith('not') ? `${state}: ${why}` : why)];
}

/** A text that stays in its cell, without the paths of a machine. */
function cell(text = '') {
  return text
    .replaceAll(/(?:\/[\w.@-]+){2,}\/?/g, '…')
    .replaceAll('|', '\\|')
    .replaceAll(/\s+/g, ' ')
    .slice(0, 200);
}
