// What quantization costs a language model: size, relative error of the weights and perplexity of a text, for several widths.
// The model that ships with the repository, and SmolLM2-135M-Instruct where HQQ_MODELS has it: the one expanded from a Q4_1 GGUF, whose
// weights lie, every 32, on 16 levels, which flatters 4 bits in groups of 32. Prints one JSON document, with the models skipped, and why.
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { backend, quantizeModel } from 'hqq';
import { loadLanguageModel } from 'hqq/runtime';

const models = process.env.HQQ_MODELS ?? fileURLToPath(new URL('../../shared/models', import.meta.url));
const work = mkdtempSync(join(process.env.HQQ_BENCH_DIR ?? tmpdir(), 'hqq-bench-'));
const WIDTHS = [8, 4, 3, 2];

const SUBJECTS = [
  {
    name: 'llama-2.3m-books',
    folder: fileURLToPath(new URL('../examples/models/llama-2.3m-books', import.meta.url)),
    text: 'alice.txt',
    window: 128,
    windows: Infinity,
  },
  { name: 'SmolLM2-135M-Instruct', folder: join(models, 'smollm2'), text: 'wiki.ids.json', window: 512, windows: 8 },
];

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
  return { perplexity: value, tokens };
}

const results = [];
const skipped = [];
try {
  for (const subject of SUBJECTS) {
    const { name, folder, text, window } = subject;
    const missing = [text, 'model.safetensors'].find((file) => !existsSync(join(folder, file)));
    if (missing !== undefined) {
      skipped.push({ name, missing: join(folder, missing) });
      continue;
    }
    const original = statSync(join(folder, 'model.safetensors')).size;
    const { perplexity: value, tokens } = await perplexity(folder, subject);
    const rows = [{ nbits: undefined, bytes: original, perplexity: value }];
    for (const nbits of WIDTHS) {
      const output = join(work, `${name}-${nbits}`);
      const { totals } = await quantizeModel(folder, output, { nbits });
      const { bitsPerWeight, relativeError, bytesAfter: bytes } = totals;
      rows.push({
        nbits,
        bytes,
        bitsPerWeight,
        relativeError,
        perplexity: (await perplexity(output, subject)).perplexity,
      });
    }
    results.push({ name, text, window, tokens, rows });
  }
  console.log(JSON.stringify({ isa: backend().isa, results, skipped }));
} finally {
  rmSync(work, { recursive: true, force: true });
}
