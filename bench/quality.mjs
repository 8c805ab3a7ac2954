// What quantization costs a language model: bits per weight, all counted, against perplexity, for solvers, widths, groups, bytes of scales
// and importance. The model that ships with the repository, and SmolLM2-135M-Instruct where HQQ_MODELS has it, or HQQ_SMOLLM2 is it: the one
// expanded from a Q4_1 GGUF, whose weights lie, every 32, on 16 levels, with columns moved by 16, so that no group is flattered; that one
// beside ggml's types, too. Prints one JSON document, with the models skipped, and why. HQQ_QUALITY=all tries every combination, hours long;
// HQQ_QUALITY=ggml ggml's types alone, HQQ_QUALITY=tuned what is tuned (--tune); without, those of docs/quality.md. HQQ_QUALITY_MODEL=SmolLM2
// is models alone whose names begin so. In the folder that HQQ_QUALITY_KEEP names rows of our own and statistics stay as they are found, and
// those are not found again: so a run goes on where one ended; floats and ggml's types are measured each time. Such a folder is of one
// model of each name (HQQ_SMOLLM2), one build and one instruction set: nothing in it says which.
import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backend, quantizeModel } from 'hqq';
import { loadLanguageModel } from 'hqq/runtime';
import { missingGgml, openGgml } from '../interop/llama.cpp/ggml.mjs';
import { GGML_TYPES, importanceOf, writeGgmlModel } from './quality-ggml.mjs';

const models = process.env.HQQ_MODELS ?? fileURLToPath(new URL('../../shared/models', import.meta.url));
const work = mkdtempSync(join(process.env.HQQ_BENCH_DIR ?? tmpdir(), 'hqq-bench-'));
const cli = fileURLToPath(new URL('../dist/cli.mjs', import.meta.url));
const keep = process.env.HQQ_QUALITY_KEEP;
if (keep !== undefined) mkdirSync(keep, { recursive: true });

const SUBJECTS = [
  {
    name: 'llama-2.3m-books',
    folder: fileURLToPath(new URL('../examples/models/llama-2.3m-books', import.meta.url)),
    text: 'alice.txt',
    window: 128,
    windows: Infinity,
  },
  {
    name: 'SmolLM2-135M-Instruct',
    folder: process.env.HQQ_SMOLLM2 ?? join(models, 'smollm2'),
    text: 'wiki.ids.json',
    window: 512,
    windows: 8,
    ggml: true,
  },
];

/** Those that are asked for. */
function chosen() {
  const begin = process.env.HQQ_QUALITY_MODEL ?? '';
  const subjects = SUBJECTS.filter(({ name }) => name.startsWith(begin));
  if (subjects.length > 0) return subjects;
  const names = SUBJECTS.map(({ name }) => name).join(', ');
  throw new Error(`Expected HQQ_QUALITY_MODEL to begin the name of a model (${names}), got ${JSON.stringify(begin)}.`);
}

/** Every combination of the values, the last one changing first. */
function product(values) {
  return Object.entries(values).reduce(
    (rows, [key, all]) => rows.flatMap((row) => all.map((value) => ({ ...row, [key]: value }))),
    [{}],
  );
}

// What tells most comes first.
const ALL = product({
  metaBits: [16, 8],
  nbits: [4, 3, 2, 8],
  solver: ['joint', 'hqq'],
  importance: ['random', 'none', 'own', 'text'],
  groupSize: [64, 128, 32],
});
const CHOSEN = [
  ...product({ solver: ['hqq'], importance: ['none'], nbits: [8, 4, 3, 2], groupSize: [64], metaBits: [16] }),
  ...product({
    solver: ['joint'],
    importance: ['none', 'random'],
    nbits: [8, 4, 3, 2],
    groupSize: [64],
    metaBits: [16],
  }),
  ...product({ solver: ['joint'], importance: ['none', 'random'], nbits: [4, 3, 2], groupSize: [32], metaBits: [8] }),
  ...product({ solver: ['joint'], importance: ['random'], nbits: [4, 3, 2], groupSize: [128], metaBits: [8] }),
  ...product({ solver: ['joint'], importance: ['random'], nbits: [2], groupSize: [32], metaBits: [16] }),
  ...product({ solver: ['joint'], importance: ['random'], nbits: [2], groupSize: [16], metaBits: [8] }),
  ...product({ solver: ['joint'], importance: ['own'], nbits: [4, 3], groupSize: [64], metaBits: [16] }),
  ...product({
    solver: ['joint'],
    importance: ['own'],
    nbits: [2],
    groupSize: [32],
    metaBits: [16],
    refine: [false, true],
  }),
];
// Tuned with a text of its own, whose importance it has; then with all scales and zeros together, from the same blocks: minutes each of a
// small model.
const TUNED = [
  ...product({
    solver: ['joint'],
    importance: ['own'],
    nbits: [4, 3, 2],
    groupSize: [64, 32],
    metaBits: [16],
    tune: [false, true, 'model'],
  }),
  ...product({
    ...{ solver: ['joint'], importance: ['own'], nbits: [2], groupSize: [32], metaBits: [8] },
    tune: [false, true, 'model'],
  }),
];
const CASES = { all: ALL, ggml: [], tuned: TUNED }[process.env.HQQ_QUALITY] ?? CHOSEN;

/** Ids of a text: those that are given, else what the model's tokenizer makes of it. */
async function idsOf(model, file) {
  const text = readFileSync(file, 'utf8');
  if (!file.endsWith('.json')) return (await model.tokenizer()).encode(text);
  const parsed = JSON.parse(text);
  return parsed.ids ?? parsed;
}

async function perplexity(folder, { folder: original, text, window, windows }) {
  const model = await loadLanguageModel(folder);
  const ids = (await idsOf(model, join(original, text))).slice(0, window * windows + 1);
  const { perplexity: value, tokens } = await model.perplexity(ids, { window });
  await model.close();
  return { perplexity: value, tokens, ids };
}

/** ggml's types without an importance matrix, and with that of the very tokens that are measured. */
async function ggmlRows(subject, ids) {
  if (!subject.ggml || missingGgml() !== undefined) return [];
  const { name, folder, window } = subject;
  const ggml = openGgml();
  const output = join(work, name);
  try {
    const rows = [];
    for (const importance of ['none', 'measured text']) {
      const shares = importance === 'none' ? undefined : await importanceOf(folder, ids, window);
      for (const type of GGML_TYPES) {
        mkdirSync(output);
        const bitsPerWeight = await writeGgmlModel(ggml, type, folder, output, shares);
        const { perplexity: value } = await perplexity(output, subject);
        rows.push({ type, importance, bitsPerWeight, perplexity: value });
        process.stderr.write(`${name} ${JSON.stringify(rows.at(-1))}\n`);
        rmSync(output, { recursive: true });
      }
    }
    return rows;
  } finally {
    ggml.close();
  }
}

/** Statistics of a subject, found once. `text` is one that nobody measures: what the repository says of itself. */
function statistics({ name, folder }, importance) {
  if (importance === 'none') return { importance };
  const out = join(keep ?? work, `${name}-${importance}.safetensors`);
  if (existsSync(out)) return { importance: out };
  const from = importance === 'text' ? `text:${fileURLToPath(new URL('../docs/cli.md', import.meta.url))}` : importance;
  const started = performance.now();
  execFileSync(process.execPath, [cli, 'calibrate', folder, '--out', out, '--importance', from, '--quiet']);
  return { importance: out, seconds: (performance.now() - started) / 1000 };
}

/** Rows of a subject that an earlier run kept: of each, what was asked for as a text, and the row. */
function keptRows({ name }) {
  const file = join(keep ?? work, `${name}.jsonl`);
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const whole = text.slice(0, text.lastIndexOf('\n') + 1); // a run that was ended may have left part of a line
  if (whole.length < text.length) writeFileSync(file, whole);
  const lines = whole.split('\n').filter((line) => line.trim() !== '');
  return {
    of: new Map(lines.map((line) => JSON.parse(line)).map(({ asked, row }) => [JSON.stringify(asked), row])),
    add: (asked, row) => appendFileSync(file, `${JSON.stringify({ asked, row })}\n`),
  };
}

const results = [];
const skipped = [];
try {
  for (const subject of chosen()) {
    const { name, folder, text, window } = subject;
    const missing = [text, 'model.safetensors'].find((file) => !existsSync(join(folder, file)));
    if (missing !== undefined) {
      skipped.push({ name, missing: join(folder, missing) });
      continue;
    }
    const original = statSync(join(folder, 'model.safetensors')).size;
    const { perplexity: value, tokens, ids } = await perplexity(folder, subject);
    const rows = [{ nbits: undefined, bytes: original, perplexity: value }];
    const found = new Map();
    const kept = keptRows(subject);
    for (const [index, asked] of CASES.entries()) {
      const row = kept.of.get(JSON.stringify(asked));
      if (row !== undefined) {
        rows.push(row);
        continue;
      }
      const { importance, ...config } = asked;
      if (!found.has(importance) && !config.tune) found.set(importance, statistics(subject, importance));
      const output = join(work, name);
      const { totals } = await quantizeModel(folder, output, {
        ...config,
        ...(config.tune && { tune: { model: config.tune === 'model', keep: CASES[index + 1]?.tune === 'model' } }),
        // Statistics are not enough for error feedback; what is tuned finds its own.
        importance: config.tune ? 'auto' : config.refine ? importance : found.get(importance).importance,
      });
      const { bitsPerWeight, relativeError, bytesAfter: bytes } = totals;
      const measured = await perplexity(output, subject);
      rows.push({ ...config, importance, bytes, bitsPerWeight, relativeError, perplexity: measured.perplexity });
      kept.add(asked, rows.at(-1));
      process.stderr.write(`${name} ${JSON.stringify(rows.at(-1))}\n`);
      rmSync(output, { recursive: true });
    }
    const seconds = Object.fromEntries([...found].flatMap(([key, one]) => (one.seconds ? [[key, one.seconds]] : [])));
    const ggml = await ggmlRows(subject, ids);
    results.push({ name, text, window, tokens, rows, ggml, statisticsSeconds: seconds });
  }
  console.log(JSON.stringify({ isa: backend().isa, results, skipped }));
} finally {
  rmSync(work, { recursive: true, force: true });
}
