// What hqq writes, in llama.cpp. The package is dist/ of this repository: npm run build first.
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Tokenizer } from '@huggingface/tokenizers';
import { dequantizeModel, openModel, quantizeModel } from '../../dist/index.mjs';
import { greedy, perplexityOf, probabilitiesOf, topOf, withModel } from './engine.mjs';
import { FAMILIES, IDS, writeFamily } from './families.mjs';
import { missingGgml, openGgml } from './ggml.mjs';

const SHIPPED = fileURLToPath(new URL('../../examples/models/llama-2.3m-books', import.meta.url));
const PROSE = readFileSync(join(SHIPPED, 'alice.txt'), 'utf8').slice(0, 20_000);
const EXPECTED = JSON.parse(readFileSync(new URL('expected.json', import.meta.url), 'utf8'));
const TYPES = ['q4_0', 'q4_1', 'q5_0', 'q5_1', 'q8_0', 'q2_k', 'q3_k', 'q4_k', 'q5_k', 'q6_k', 'iq4_nl', 'iq4_xs'];
const RECIPES = ['Q2_K', 'Q3_K_S', 'Q3_K_M', 'Q3_K_L', 'Q4_K_S', 'Q4_K_M', 'Q5_K_S', 'Q5_K_M'];

const folder = mkdtempSync(join(tmpdir(), 'hqq-llama.cpp-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const at = (name) => join(folder, name);

/** How far the likeliest tokens' probabilities are from those of transformers, and how many of the tokens are the same. */
async function heldAgainst(name, from) {
  const file = at(`${name}-${from.turned === false}.gguf`);
  await dequantizeModel(writeFamily(at(`${name}-${from.turned === false}`), name, from), file);
  const found = await withModel(file, async (model) => (await probabilitiesOf(model, IDS)).map(topOf));
  const far = Math.max(...found.map(([, probability], i) => Math.abs(probability - EXPECTED[name][i][1])));
  return { far, same: found.filter(([id], i) => id === EXPECTED[name][i][0]).length };
}

for (const name of Object.keys(FAMILIES)) {
  test(`${name} computes what transformers computes`, async (t) => {
    const { far, same } = await heldAgainst(name, {});
    t.diagnostic(`${same} of ${IDS.length} tokens, probabilities within ${far.toExponential(1)}`);
    assert.equal(same, IDS.length);
    assert.ok(far <= 1e-3, `${far}`);
  });
}

test('without the order of q and k that llama.cpp wants the same test fails', async (t) => {
  const { far, same } = await heldAgainst('llama', { turned: false });
  t.diagnostic(`${same} of ${IDS.length} tokens`);
  assert.ok(same < IDS.length / 2 && far > 1e-2);
});

const float = at('float.gguf');
let ids = [];
let exact = 0;

test('the float file reads a text as the tokenizer does', async () => {
  await dequantizeModel(SHIPPED, float, { dtype: 'float32' });
  const json = JSON.parse(readFileSync(join(SHIPPED, 'tokenizer.json'), 'utf8'));
  ids = new Tokenizer(json, {}).encode(PROSE, { add_special_tokens: false }).ids;
  assert.deepEqual(await withModel(float, (model) => [...model.tokenize(PROSE)]), ids);
});

for (const type of [...TYPES, ...RECIPES]) {
  test(`${type} loads, and is a model`, async (t) => {
    const file = at(`${type}.gguf`);
    await quantizeModel(SHIPPED, file, { type, importance: 'none', force: true });
    exact ||= await withModel(float, (model) => perplexityOf(model, ids.slice(0, 101)));
    const lossy = await withModel(file, (model) => perplexityOf(model, ids.slice(0, 101)));
    t.diagnostic(`perplexity ${lossy.toFixed(3)}, of the floats ${exact.toFixed(3)}`);
    assert.ok(Math.abs(Math.log(lossy / exact)) < (/2_K|2_k/.test(type) ? 0.4 : 0.15));
  });
}

async function typesIn(file) {
  const model = await openModel(file);
  try {
    return Object.fromEntries(model.tensors.map(({ name, dtype, quantized }) => [name, quantized?.packing ?? dtype]));
  } finally {
    await model.close();
  }
}

test('mixes are those of llama.cpp', { skip: missingGgml() ?? false }, async () => {
  const ggml = openGgml();
  try {
    for (const recipe of RECIPES) {
      ggml.quantizeModel(float, at('theirs.gguf'), recipe);
      assert.deepEqual(await typesIn(at(`${recipe}.gguf`)), await typesIn(at('theirs.gguf')), recipe);
    }
  } finally {
    ggml.close();
  }
});

test('Q8_0 writes what the floats write', async () => {
  const start = ids.slice(0, 20);
  const texts = [];
  for (const file of [float, at('q8_0.gguf')]) texts.push(await withModel(file, (model) => greedy(model, start, 40)));
  assert.deepEqual(texts[1], texts[0]);
});

const modern = (digits) =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const bytes = (words) => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: words });
const split = (digits) => ({ type: 'Split', pattern: { Regex: modern(digits) }, behavior: 'Isolated', invert: false });
const STEPS = {
  'gpt-2': bytes(true),
  smollm: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, bytes(true)] },
  'llama-bpe': { type: 'Sequence', pretokenizers: [split('\\p{N}{1,3}'), bytes(false)] },
  qwen2: { type: 'Sequence', pretokenizers: [split('\\p{N}'), bytes(false)] },
};
const NASTY =
  "  He said:\t'I'LL pay 12345.67€\u00a0— naïve café, 東京 🎉🎉'\r\n\r\n\n  (x1==y22)  don't\u200b we'RE ½ ٣٤٥ é  ";

for (const [label, step] of Object.entries(STEPS)) {
  test(`texts are cut as by the tokenizer: ${label}`, async () => {
    const from = at(`cut-${label}`);
    cpSync(SHIPPED, from, { recursive: true });
    const json = JSON.parse(readFileSync(join(SHIPPED, 'tokenizer.json'), 'utf8'));
    const own = { ...json, pre_tokenizer: step, model: { ...json.model, ignore_merges: label === 'llama-bpe' } };
    writeFileSync(join(from, 'tokenizer.json'), JSON.stringify(own));
    await quantizeModel(from, at(`${label}.gguf`), { type: 'q8_0', importance: 'none' });
    const tokenizer = new Tokenizer(own, {});
    await withModel(at(`${label}.gguf`), (model) => {
      for (const text of [PROSE, NASTY])
        assert.deepEqual([...model.tokenize(text)], tokenizer.encode(text, { add_special_tokens: false }).ids);
    });
  });
}
