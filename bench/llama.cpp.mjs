// Perplexity in llama.cpp of files that hqq makes beside those that llama.cpp's own quantizer makes of the same floats, without an importance
// matrix there: of llama-2.3m-books in one type each, and of SmolLM2-135M (HQQ_SMOLLM2: its folder), with importance from random tokens,
// in mixes. Differences are told with their standard errors, window by window. Prints one JSON document.
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dequantizeModel, quantizeModel } from 'hqq';
import { missingGgml, openGgml } from '../interop/llama.cpp/ggml.mjs';

const missing = missingGgml();
if (missing !== undefined) {
  console.log(JSON.stringify({ missing }));
  process.exit(0);
}
const { withModel } = await import('../interop/llama.cpp/engine.mjs');

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const SHIPPED = at('../examples/models/llama-2.3m-books');
const text = readFileSync(join(SHIPPED, 'alice.txt'), 'utf8');
const SUBJECTS = [
  {
    ...{ name: 'llama-2.3m-books', folder: SHIPPED, importance: 'none', pure: true, tokens: 46_000, window: 100 },
    types: ['Q2_K', 'Q3_K', 'Q4_0', 'Q4_K', 'Q4_1'],
  },
  {
    ...{ name: 'SmolLM2-135M', folder: process.env.HQQ_SMOLLM2, importance: 'random', pure: false },
    ...{ types: ['Q4_K_M', 'Q3_K_M', 'Q2_K'], tokens: 2000, window: 200 },
  },
];

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** How much more nats a token costs in one than in the other, and the standard error of that. */
function difference(ours, theirs) {
  const each = ours.map((nats, i) => nats - theirs[i]);
  const nats = mean(each);
  return { nats, error: Math.sqrt(mean(each.map((one) => (one - nats) ** 2)) / (each.length - 1)) };
}

const work = mkdtempSync(join(tmpdir(), 'hqq-llama.cpp-'));
const ggml = openGgml();
const results = [];
const skipped = [];
try {
  for (const { name, folder, importance, pure, types, tokens, window } of SUBJECTS) {
    if (folder === undefined || !existsSync(folder)) {
      skipped.push({ name, missing: folder ?? 'HQQ_SMOLLM2' });
      continue;
    }
    const [float, ours, theirs] = ['float', 'ours', 'theirs'].map((file) => join(work, `${file}.gguf`));
    await dequantizeModel(folder, float, { dtype: 'float32', force: true });
    const measure = (file) => {
      const nats = ggml.nats(file, ids, window);
      return { told: { bytes: statSync(file).size, perplexity: Math.exp(mean(nats)) }, nats };
    };
    const ids = await withModel(float, (model) => [...model.tokenize(text)].slice(0, tokens + 1));
    const rows = [{ type: 'F32', ours: measure(float).told }];
    for (const type of types) {
      await quantizeModel(folder, ours, { type: pure ? type.toLowerCase() : type, importance, force: true });
      ggml.quantizeModel(float, theirs, type, { pure });
      const [own, other] = [measure(ours), measure(theirs)];
      rows.push({ type, ours: own.told, theirs: other.told, difference: difference(own.nats, other.nats) });
    }
    results.push({ name, importance, tokens: ids.length - 1, window, rows });
  }
  console.log(JSON.stringify({ results, skipped }));
} finally {
  ggml.close();
  rmSync(work, { recursive: true, force: true });
}
process.exit(0); // llama.cpp's threads may wait on
