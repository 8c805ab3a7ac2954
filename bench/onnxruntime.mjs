// ONNX files that hqq makes, in onnxruntime-node, beside those of onnxruntime's own quantizer, which is of Python (HQQ_PYTHON: one that has
// onnxruntime, onnx and onnx_ir; else its columns are empty): errors of weights, perplexities, sizes, whether graphs compute what
// their weights say, times. HQQ_ONNX names some of these. Prints one JSON document.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dequantizeModel, openModel, quantizeModel } from 'hqq';
import { openTokenizer } from 'hqq/runtime';
import { missingOnnxRuntime, openOnnxRuntime } from '../interop/onnxruntime/engine.mjs';
import { floats, gaussian, graph, model, node, value } from '../interop/onnxruntime/graph.mjs';
import { divergenceOf, llamaGraph, logitsOf, lossOf } from '../interop/onnxruntime/llama.mjs';
import { median, quantile } from './measure.mjs';

const missing = missingOnnxRuntime();
if (missing !== undefined) {
  console.log(JSON.stringify({ missing }));
  process.exit(0);
}
const ort = await openOnnxRuntime();
process.chdir(fileURLToPath(new URL('../interop/onnxruntime', import.meta.url))); // where hqq finds it, too, for importance
const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const SHIPPED = at('../examples/models/llama-2.3m-books');
const ALL = { include: ['*'] };
const MODELS = process.env.HQQ_MODELS ?? at('../../shared/models');
const python = process.env.HQQ_PYTHON;
const parts = process.env.HQQ_ONNX?.split(',');
const wants = (part) => parts === undefined || parts.includes(part);
const work = mkdtempSync(join(tmpdir(), 'hqq-onnxruntime-'));
const file = (name) => join(work, `${name}.onnx`);
const open = (path) => ort.InferenceSession.create(path, { intraOpNumThreads: 1, logSeverityLevel: 3 });

/** What onnxruntime's quantizer makes of a file; undefined without it. */
function theirs(input, { nbits, groupSize, symmetric = false, accuracyLevel = 4 }) {
  if (python === undefined) return undefined;
  const [script, output] = [at('../interop/onnxruntime/quantize.py'), file('theirs')];
  const given = [script, input, output, nbits, groupSize, symmetric ? 1 : 0, accuracyLevel];
  execFileSync(python, given.map(String), { stdio: ['ignore', 'ignore', 'inherit'] });
  return output;
}

async function ours(input, options, name = 'ours') {
  await quantizeModel(input, file(name), { importance: 'none', ...options, force: true });
  return file(name);
}

/** y = x . w */
function product(name, k, n, weights) {
  const nodes = [node('MatMul', ['x', 'w'], ['y'], {}, { name: '/m/MatMul' })];
  const [inputs, outputs] = [[value('x', 'float32', ['rows', k])], [value('y', 'float32', ['rows', n])]];
  writeFileSync(file(name), model(graph({ nodes, tensors: [floats('w', [k, n], weights)], inputs, outputs })));
  return file(name);
}

/** The one matrix of a file. */
async function matrixOf(path) {
  const opened = await openModel(path);
  try {
    return Float32Array.from(opened.tensor([...opened.shapes].find(([, shape]) => shape.length === 2)[0]));
  } finally {
    await opened.close();
  }
}

function distance(a, b) {
  let [error, size] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    error += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return Math.sqrt(error / size);
}

/** Of the weights of a file, from those that it was made of. */
async function errorOf(path, exact) {
  if (path === undefined) return undefined;
  await dequantizeModel(path, file('back'), { force: true });
  return distance(await matrixOf(file('back')), exact);
}

async function errors() {
  const [k, n] = [2048, 512];
  const input = product('weights', k, n, gaussian(k * n, 1, 0.02));
  const exact = await matrixOf(input);
  const rows = [];
  for (const [nbits, groupSize] of [4, 32, 4, 64, 4, 128, 2, 32, 8, 64].flatMap((x, i, all) =>
    i % 2 ? [] : [[x, all[i + 1]]],
  )) {
    const row = { nbits, groupSize };
    for (const zeroPoint of ['float', 'integer', 'symmetric'])
      row[zeroPoint] = await errorOf(await ours(input, { nbits, groupSize, zeroPoint }), exact);
    row.theirs = await errorOf(theirs(input, { nbits, groupSize }), exact);
    row.theirsSymmetric = await errorOf(theirs(input, { nbits, groupSize, symmetric: true }), exact);
    rows.push(row);
  }
  return { k, n, rows };
}

/** Logits of a Llama at accuracy level 0 beside those of its own weights, in floats. */
async function graphs() {
  const { bytes, config } = await llamaGraph(SHIPPED);
  writeFileSync(file('llama'), bytes);
  const ids = Array.from({ length: 128 }, (_, i) => (i * 977) % config.vocab_size);
  const run = async (path) => {
    const session = await open(path);
    const logits = await logitsOf(ort, session, config, ids);
    await session.release();
    return logits;
  };
  const rows = [];
  for (const [zeroPoint, groupSize, correction] of [
    ['integer', 32, 'none'],
    ['float', 64, 'float'],
    ['float', 16, '8 bits'],
  ]) {
    const path = await ours(file('llama'), { nbits: 4, groupSize, zeroPoint, accuracyLevel: 0 });
    await dequantizeModel(path, file('back'), { force: true });
    rows.push({ zeroPoint, groupSize, correction, far: distance(await run(path), await run(file('back'))) });
  }
  return rows;
}

async function times() {
  const size = 4096;
  const input = product('weights', size, size, gaussian(size * size, 1, 0.02));
  const sessions = { fp32: await open(input) };
  for (const zeroPoint of ['integer', 'float', 'symmetric'])
    sessions[zeroPoint] = await open(await ours(input, { nbits: 4, groupSize: 64, zeroPoint }, zeroPoint));
  const rows = [];
  for (const [batch, rounds] of [
    [1, 21],
    [64, 5],
  ]) {
    const feeds = { x: new ort.Tensor('float32', gaussian(batch * size, 3), [batch, size]) };
    const ms = Object.fromEntries(Object.keys(sessions).map((name) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      for (const [name, session] of Object.entries(sessions)) {
        // The first of a row finds the weights of others in the cache.
        for (let i = 0; i < 6; i++) {
          const start = performance.now();
          await session.run(feeds);
          if (i > 0) ms[name].push(performance.now() - start);
        }
      }
    }
    const of = (values) => ({ ms: median(values), low: quantile(values, 0.25), high: quantile(values, 0.75) });
    rows.push({ batch, ...Object.fromEntries(Object.entries(ms).map(([name, values]) => [name, of(values)])) });
  }
  return { size, groupSize: 64, rows };
}

const LLAMAS = [
  {
    ...{ name: 'llama-2.3m-books', folder: SHIPPED, text: 'alice.txt' },
    ...{ window: 128, options: {} },
  },
  // Most of its layers are smaller than what is quantized by default.
  {
    ...{ name: 'stories260K', folder: join(MODELS, 'small/stories260K'), text: 'tinystories_val_50k.txt' },
    ...{ window: 256, options: { ...ALL, exclude: ['/lm_head/*', '/model/embed_tokens/*'] } },
  },
];

/** Perplexities in onnxruntime, of the layers but embedding and head, then of everything. */
async function perplexities() {
  const results = [];
  for (const { name, folder, text, window, options } of LLAMAS) {
    if (!existsSync(folder)) continue;
    const { bytes, config } = await llamaGraph(folder);
    writeFileSync(file('llama'), bytes);
    const tokenizer = await openTokenizer(folder);
    const ids = await tokenizer.encode(readFileSync(join(folder, text), 'utf8'));
    await tokenizer.close();
    const windows = Math.min(Number(process.env.HQQ_WINDOWS ?? Infinity), Math.floor(ids.length / window));
    const measure = async (path) => {
      if (path === undefined) return undefined;
      const [session, original] = [await open(path), await open(file('llama'))];
      const [losses, divergences] = [[], []];
      for (let i = 0; i < windows; i++) {
        const own = ids.slice(i * window, (i + 1) * window);
        const logits = await logitsOf(ort, session, config, own);
        losses.push(lossOf(logits, own, config.vocab_size));
        const exact = await logitsOf(ort, original, config, own);
        divergences.push(divergenceOf(exact, logits, config.vocab_size));
      }
      await Promise.all([session.release(), original.release()]);
      return { bytes: statSync(path).size, losses, divergences };
    };
    const mean = (values) => values.reduce((sum, one) => sum + one / values.length, 0);
    const float = await measure(file('llama'));
    const perplexity = Math.exp(mean(float.losses));
    const rows = [{ name: 'float32', bytes: float.bytes, perplexity }];
    const add = async (row, path) => {
      const measured = await measure(path);
      if (measured === undefined) return void rows.push(row);
      const more = measured.losses.map((loss, i) => loss - float.losses[i]);
      const middle = mean(more);
      // How far what is added may be from that of all texts: windows differ.
      const error = perplexity * Math.sqrt(mean(more.map((one) => (one - middle) ** 2)) / (windows - 1));
      // How far the model is from the original, whatever the text happens to favour.
      const divergence = mean(measured.divergences);
      rows.push({ ...row, bytes: measured.bytes, perplexity: Math.exp(mean(measured.losses)), error, divergence });
    };
    for (const accuracyLevel of [4, 0]) {
      const asked = { nbits: 4, groupSize: 32, accuracyLevel };
      for (const symmetric of [false, true]) {
        const own = theirs(file('llama'), { ...asked, symmetric });
        await add({ name: `onnxruntime's${symmetric ? ', symmetric' : ''}`, ...asked }, own);
      }
      for (const zeroPoint of ['float', 'integer', 'symmetric']) {
        for (const importance of ['none', 'random']) {
          const own = { ...asked, zeroPoint, importance };
          await add({ name: zeroPoint, importance, ...asked }, await ours(file('llama'), { ...options, ...own }));
        }
        const refined = { ...asked, zeroPoint, importance: 'random', refine: true };
        await add({ name: zeroPoint, ...refined }, await ours(file('llama'), { ...options, ...refined }));
      }
    }
    for (const [nbits, groupSize] of [
      [8, 64],
      [4, 32],
    ]) {
      const asked = { nbits, groupSize, accuracyLevel: 4 };
      const all = { ...ALL, ...asked, embeddings: nbits };
      await add({ name: 'integer, everything', importance: 'none', ...asked }, await ours(file('llama'), all));
    }
    results.push({ name, text, window, tokens: windows * window, rows });
  }
  return results;
}

try {
  const results = {};
  for (const [part, measure] of Object.entries({ errors, graphs, perplexities, times }))
    if (wants(part)) results[part] = await measure();
  console.log(JSON.stringify({ onnxruntime: ort.env.versions?.common, python: python !== undefined, ...results }));
} finally {
  rmSync(work, { recursive: true, force: true });
}
