// npm run sweep: tiny models of every class of transformers, quantized, loaded with Python's hqq and compared; writes docs/architectures.md.
//
//     npm run sweep -- --python python4 [--write-only] [CLASS ...]
//     npm run sweep -- --python python5 --to compressed-tensors [CLASS ...]
//
// Results stay in .cache/, a file for each format; the page is written of all of them.
// It goes on where an earlier run was ended: delete the results to begin anew. scripts/architectures/README.md says what Python needs.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { brotliDecompressSync } from 'node:zlib';

const root = fileURLToPath(new URL('..', import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    python: { type: 'string', default: 'python3' },
    to: { type: 'string', default: 'hqq' },
    'write-only': { type: 'boolean', default: false },
  },
});

/** What sweep.py does, and what it does with SWEEP_RUNS=quick. */
const RUNS =
  process.env.SWEEP_RUNS === 'quick'
    ? 'in float32 quantized to 4 bits, and in bfloat16 to 8'
    : 'in float32 and in bfloat16, quantized to 8 and to 4 bits';

/** Characters of a reason. */
const LONGEST = 400;

const fileOf = (format) => join(root, '.cache', `sweep-${format}.json`);
/** Classes and what became of them, by name; none where nothing was tried. */
function resultsOf(format) {
  const file = fileOf(format);
  if (!existsSync(file)) return [];
  return Object.entries(JSON.parse(readFileSync(file, 'utf8'))).sort(([a], [b]) => (a < b ? -1 : 1));
}

mkdirSync(join(root, '.cache'), { recursive: true });
if (!values['write-only']) {
  const script = join(root, 'scripts/architectures/sweep.py');
  const env = { ...process.env, SWEEP_TO: values.to };
  const { status } = spawnSync(values.python, [script, fileOf(values.to), ...positionals], { stdio: 'inherit', env });
  if (status !== 0) process.exit(status ?? 1);
}
const results = resultsOf('hqq');
const engines = resultsOf('compressed-tensors');
if (results.length === 0) throw new Error(`Expected results in ${fileOf('hqq')}, found none.`);
writeFileSync(join(root, 'docs/architectures.md'), page(results, engines));
const wrong = [...results, ...engines].filter(([, found]) => stateOf(found) === 'wrong').map(([name]) => name);
console.log(`${results.length + engines.length} classes; wrong: ${wrong.length === 0 ? 'none' : wrong.join(', ')}`);
process.exitCode = wrong.length === 0 ? 0 : 1;

/** The page, of classes and what became of them. */
function page(all, engines) {
  const inFive = new Map(engines);
  const row = (entry) => wideRow(entry, inFive.get(entry[0]));
  const of = (...states) => all.filter(([, { state }]) => states.includes(state));
  const [same, loaded, told, refused] = [of('same'), of('loaded'), of('told'), of('refused')];
  const [wrong, open, absent] = [of('wrong'), of('open'), of('not built', 'not saved', 'not loaded', 'failed')];
  const count = (list) => list.length.toLocaleString('en-US');
  return `${[
    '# Architectures',
    `What \`npm run sweep\` saw of ${count(all)} model classes of transformers 4.57.6: a tiny model with random weights of each, ${RUNS}, ` +
      "loaded in transformers with Python's hqq, and held against the model that `hqq dequantize` makes of it: keys that are missing, " +
      'unexpected or mismatched, every weight, and results, where plain inputs give any.',
    untried(all),
    `| | classes |\n|---|---|\n| loads, results equal | ${count(same)} |\n| loads, weights equal; no results from plain inputs | ${count(loaded)} |\n` +
      `| quantized for \`hqq\` alone, as a note says | ${count(told)} |\n| refused | ${count(refused)} |\n| wrong | ${count(wrong)} |\n| to be tried again | ${count(open)} |\n` +
      `| cannot be tried | ${count(absent)} |`,
    'Layers are linear modules of the tiny model; quantized, those of them that are; share, the part of all parameters that these hold. ' +
      'What stays, the summary of a run says: heads, layers whose weight is read past them, layers whose names transformers confuses.' +
      (engines.length === 0
        ? ''
        : ' The last column is what transformers 5 has quantized of the same class, as the next section says.'),
    ...enginesSection(engines),
    ...section('Loads, results equal', same, row, true),
    ...section('Loads, weights equal', loaded, row, true),
    ...section('For `hqq` alone', told, reason),
    ...section('Refused', refused, reason),
    ...section('Wrong', wrong, (entry) => [...reason(entry).slice(0, 1), cell(entry[1].problems[0])]),
    ...section('To be tried again', open, reason),
    ...section('Cannot be tried', absent, reason),
  ].join('\n\n')}\n`;
}

/** What is to be known of the classes that are not on the page. */
function untried(all) {
  const classes = classesOfTable();
  const names = new Set(all.map(([name]) => name));
  const types = new Set(classes.filter(({ name }) => names.has(name)).map(({ type }) => type));
  const others = classes.filter(({ name }) => !names.has(name));
  const alike = others.filter(({ type }) => types.has(type)).length;
  const count = (number) => number.toLocaleString('en-US');
  return (
    `The table of architectures has ${count(classes.length)} classes of that version, read from transformers itself. The other ` +
    `${count(others.length)} have not been tried so; ${count(alike)} of them are other heads, or the bare models, of types that have. What is ` +
    'quantized of them the same table says, which `hqq inspect` shows.'
  );
}

/** Classes of transformers 4 that lib/ has a row of, and their model types. */
function classesOfTable() {
  const source = readFileSync(join(root, 'lib/models/select/architecture-data.ts'), 'utf8');
  const [, parts] = /export const CLASSES[^=]*= \[\n(.*?)^\];/ms.exec(source);
  const texts = [...parts.matchAll(/'([\w+/=]{100,})'/g)].map(([, packed]) =>
    brotliDecompressSync(Buffer.from(packed, 'base64')),
  );
  return texts
    .join('\n')
    .split('\n')
    .map((line) => line.split('\t'))
    .filter(([, , versions]) => versions.includes('4'))
    .map(([name, , , type]) => ({ name, type }));
}

/** What was seen of folders of compressed-tensors. */
function enginesSection(all) {
  if (all.length === 0) return [];
  const absent = all.filter(([, { state }]) => ['not built', 'not saved', 'not loaded', 'failed'].includes(state));
  const tried = all.filter((entry) => !absent.includes(entry));
  const loaded = tried.filter(([, { state }]) => state === 'same' || state === 'loaded');
  const same = loaded.filter(([, { state }]) => state === 'same').length;
  return [
    '## transformers 5',
    `The same classes with \`--to compressed-tensors\`, in float32 quantized to 4 bits and in bfloat16 to 8 (SWEEP_RUNS=quick), in transformers 5.24.0 with compressed-tensors 0.20.1: ${loaded.length} of ` +
      `${tried.length} load with equal weights, ${same} of them with equal results. Some classes of transformers 5 give first values to layers that are ` +
      'loaded already, and read weights for that, which a packed layer has not: config.json has the library unpack these as they are read, where ' +
      `all layers are stored alike, else they stay. ${absent.length} more cannot be tried. What ends in an error, most often because transformers 5 ` +
      'has other names for modules than files have, does so as it is loaded, and not in silence.',
    ...reasonsTable(tried.filter((entry) => !loaded.includes(entry))),
    ...reasonsTable(absent),
  ];
}

/** What became of a class; of one that ends in an error as it is loaded, nobody computes with what is wrong. */
function stateOf({ state, problems = [] }) {
  return state === 'wrong' && / bits: \w*Error:/.test(problems[0]) ? 'error on loading' : state;
}

/** Classes by why they are in no column. */
function reasonsTable(entries) {
  if (entries.length === 0) return [];
  const byReason = new Map();
  for (const [name, found] of entries) {
    const text = `${stateOf(found)} | ${cell(found.problems?.[0] ?? found.reason)}`;
    byReason.set(text, [...(byReason.get(text) ?? []), name]);
  }
  const rows = [...byReason].map(([text, names]) => `| ${names.join(', ')} | ${text} |`);
  return [`| classes | state | why |\n|---|---|---|\n${rows.join('\n')}`];
}

function section(title, entries, cells, wide = false) {
  if (entries.length === 0) return [];
  const head = wide
    ? '| class | layers | quantized | share | in transformers 5 |\n|---|---|---|---|---|'
    : '| class | why |\n|---|---|';
  return [`## ${title}`, `${head}\n${entries.map((entry) => `| ${cells(entry).join(' | ')} |`).join('\n')}`];
}

function wideRow([name, { linear, quantized, share }], five) {
  const there =
    five === undefined ? '-' : five.state === 'same' || five.state === 'loaded' ? `${five.quantized}` : stateOf(five);
  return [name, linear, quantized, share === undefined ? '-' : `${Math.round(share * 100)} %`, there];
}

function reason([name, { state, reason: whole = '' }]) {
  const why = [...new Set(whole.split('; '))].join('; '); // of each size that was tried
  return [name, cell(state === 'failed' || state.startsWith('not') ? `${state}: ${why}` : why)];
}

/** A text that stays in its cell, without the paths of a machine. */
function cell(text = '') {
  const line = text
    .replaceAll(/(?:\/[\w.@-]+){2,}\/?/g, '…')
    .replaceAll('|', '\\|')
    .replaceAll(/\s+/g, ' ');
  return line.length <= LONGEST ? line : `${line.slice(0, LONGEST).replace(/\s+\S*$/, '')} …`;
}
