// ggml's block types: squared error and speed of `joint` beside ggml's own quantizer, on normal weights and on those of a model, plain and
// with importance; and whether ggml decodes every block to the numbers that we say it holds. HQQ_TYPES=q4_k,q2_k: those alone.
// Prints one JSON document.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { backend, openModel } from 'hqq';
import ts from 'typescript';
import { missingGgml, openGgml } from '../interop/llama.cpp/ggml.mjs';
import { gaussian, randomOf } from '../test/support/random.mjs';
import { median, time } from './measure.mjs';

const missing = missingGgml();
if (missing !== undefined) {
  console.log(JSON.stringify({ missing }));
  process.exit(0);
}

/** A module of lib/ that imports nothing but types: dist/ has these inside, and names them to nobody. */
function load(path) {
  const source = readFileSync(new URL(path, import.meta.url), 'utf8');
  const { outputText } = ts.transpileModule(source, { compilerOptions: { module: 'esnext', target: 'es2022' } });
  return import(`data:text/javascript,${encodeURIComponent(outputText)}`);
}
const { BLOCK_TYPES } = await load('../lib/matrix/block-types.ts');
const { rangeOf, searchOf } = await load('../lib/schemes/ggml/search.ts');

const root = fileURLToPath(new URL('..', import.meta.url));
const { isa } = backend();
const ours = createRequire(import.meta.url)('node-gyp-build')(root).open(isa);
const ggml = openGgml();
const COLUMNS = 256;
const REPEATS = 5;

const normal = (count, size, seed) => Float32Array.from({ length: count }, gaussian(randomOf(seed), size));

/** Every matrix of the model that ships with the repository, one after the other: all have rows of whole 256 weights. */
async function weightsOfBooks() {
  const model = await openModel(fileURLToPath(new URL('../examples/models/llama-2.3m-books', import.meta.url)));
  try {
    const matrices = model.tensors.filter(({ shape }) => shape.length === 2).map(({ name }) => model.tensor(name));
    const all = new Float32Array(matrices.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const matrix of matrices) {
      all.set(matrix, at);
      at += matrix.length;
    }
    return all;
  } finally {
    await model.close();
  }
}

/** Squares of normal numbers, which lie far apart, as those of activations do. */
const importance = normal(COLUMNS, 1, 7).map((x) => x * x + 0.05);

function encode(type, weights, shares, { starts, ...search }) {
  const blocks = new Uint8Array((weights.length / type.weights) * type.bytes);
  ours.run('encodeBlocks', {
    ...{ type: type.id, rows: weights.length / COLUMNS, cols: COLUMNS, weights, dtype: 0, blocks, threads: 1 },
    ...{ starts: Float32Array.from(starts.flat()), ...search, importance: shares ?? new Float32Array(0) },
    stats: new Float64Array(5),
  });
  return blocks;
}

function decode(type, blocks) {
  const out = new Float32Array((blocks.length / type.bytes) * type.weights);
  ours.run('decodeBlocks', { type: type.id, blocks, out, threads: 1 });
  return out;
}

/** Sum of squared errors, each times its column's importance. */
function errorOf(weights, decoded, shares) {
  let sum = 0;
  for (let i = 0; i < weights.length; i++)
    sum += (shares === undefined ? 1 : shares[i % COLUMNS]) * (weights[i] - decoded[i]) ** 2;
  return sum;
}

function compared(type, weights, shares) {
  const blocks = encode(type, weights, shares, searchOf(type));
  const decoded = decode(type, blocks);
  const theirs = ggml.quantize(type.name, COLUMNS, weights, shares);
  const exact = Buffer.compare(Buffer.from(decoded.buffer), Buffer.from(ggml.decode(type.name, blocks).buffer)) === 0;
  const ms = [];
  for (let i = 0; i < REPEATS; i++) ms.push(time(() => encode(type, weights, shares, searchOf(type))));
  return {
    ratio: errorOf(weights, decoded, shares) / errorOf(weights, decode(type, theirs.blocks), shares),
    weightsPerSecond: weights.length / Math.min(...ms) / 1e-3,
    medianWeightsPerSecond: weights.length / median(ms) / 1e-3,
    ggmlWeightsPerSecond: weights.length / theirs.seconds,
    exact,
  };
}

try {
  const subjects = [
    ['gaussian', normal(2 ** 20, 0.02, 1)],
    ['llama-2.3m-books', await weightsOfBooks()],
  ];
  const rows = [];
  const wanted = process.env.HQQ_TYPES?.toUpperCase().split(',');
  const unknown = wanted?.find((name) => BLOCK_TYPES.every((type) => type.name !== name));
  if (unknown !== undefined) {
    const names = BLOCK_TYPES.map(({ name }) => name.toLowerCase()).join(', ');
    throw new Error(`Expected HQQ_TYPES to be of ${names}, got ${unknown.toLowerCase()}.`);
  }
  for (const type of BLOCK_TYPES.filter(({ name }) => wanted?.includes(name) ?? true)) {
    for (const [subject, weights] of subjects) {
      for (const shares of [undefined, importance]) {
        const weighted = shares !== undefined;
        rows.push({ type: type.name, subject, weighted, ...compared(type, weights, shares) });
      }
    }
    // What rounding to nearest writes is read as it is meant, too.
    const blocks = encode(type, subjects[0][1], undefined, rangeOf(type));
    const same = Buffer.compare(
      Buffer.from(decode(type, blocks).buffer),
      Buffer.from(ggml.decode(type.name, blocks).buffer),
    );
    if (same !== 0) throw new Error(`ggml decodes ${type.name} to other numbers.`);
  }
  console.log(JSON.stringify({ isa, threads: 1, rows }));
} finally {
  ggml.close();
}
