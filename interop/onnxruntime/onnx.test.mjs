// What hqq writes, in onnxruntime-node and transformers.js. The package is dist/ of this repository: npm run build first.
import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as ort from 'onnxruntime-node';
import { dequantizeModel, quantizeModel } from '../../dist/index.mjs';
import { collectImportance } from '../../dist/runtime.mjs';
import { floats, gaussian, graph, model, node, tensor, value } from './graph.mjs';
import { divergenceOf, llamaGraph, logitsOf, lossOf } from './llama.mjs';

const SHIPPED = fileURLToPath(new URL('../../examples/models/llama-2.3m-books', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'hqq-onnxruntime-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const at = (name) => join(folder, name);

const open = (path) => ort.InferenceSession.create(path, { intraOpNumThreads: 1, logSeverityLevel: 3 });

async function run(path, feeds) {
  const session = await open(path);
  const given = await session.run(feeds);
  await session.release();
  return given;
}

function distance(a, b) {
  let [error, size] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    error += (Number(a[i]) - Number(b[i])) ** 2;
    size += Number(b[i]) ** 2;
  }
  return Math.sqrt(error / size);
}

const [N, ROWS] = [72, 5];
const forms = ['integer', 'symmetric', 'float'].flatMap((zeroPoint) =>
  [2, 4, 8].flatMap((nbits) => [16, 32, 64, 128, 256].map((groupSize) => ({ zeroPoint, nbits, groupSize }))),
);

for (const k of [512, 300]) {
  const x = new ort.Tensor('float32', gaussian(ROWS * k, 2), [ROWS, k]);
  const original = at(`product-${k}.onnx`);
  const nodes = [
    node('MatMul', ['x', 'w'], ['h'], {}, { name: 'm' }),
    node('Add', ['h', 'b'], ['a']),
    node('Gemm', ['x', 'g', 'c'], ['z'], { transB: 1 }, { name: 'g' }),
    node('Add', ['a', 'z'], ['y']),
  ];
  const tensors = [
    floats('w', [k, N], gaussian(k * N, 3, 0.05)),
    floats('b', [N], gaussian(N, 4)),
    floats('g', [N, k], gaussian(k * N, 5, 0.05)),
    floats('c', [1], gaussian(1, 6)),
  ];
  const [inputs, outputs] = [[value('x', 'float32', ['rows', k])], [value('y', 'float32', ['rows', N])]];
  writeFileSync(original, model(graph({ nodes, tensors, inputs, outputs })));

  test(`products of ${k} inputs compute what their weights say, in every form`, async (t) => {
    let most = 0;
    for (const form of forms) {
      const [codes, back] = [at('codes.onnx'), at('back.onnx')];
      await quantizeModel(original, codes, { ...form, accuracyLevel: 0, force: true });
      await dequantizeModel(codes, back, { force: true });
      const far = distance((await run(codes, { x })).y.data, (await run(back, { x })).y.data);
      // A correction in 8 bits is multiplied with inputs that are rounded to 8 bits; of 2 bits it is the larger part.
      const isRough = form.zeroPoint === 'float' && form.nbits !== 8 && Math.ceil(k / form.groupSize) >= 16;
      assert.ok(far <= (isRough ? (form.nbits === 2 ? 5e-3 : 3e-3) : 1e-6), `${JSON.stringify(form)}: ${far}`);
      if (!isRough) most = Math.max(most, far);
    }
    t.diagnostic(`${forms.length} forms, within ${most.toExponential(1)} but for corrections in 8 bits`);
  });
}

test('half precision, tables, and weights within other graphs load and compute', async () => {
  const half = (count, seed) =>
    Uint16Array.from(gaussian(count, seed), (v) => (v < 0 ? 0x8000 : 0) | (0x2c00 + Math.floor(Math.abs(v) * 300)));
  const k = 128;
  const inner = (name) =>
    graph({
      nodes: [node('MatMul', ['h', 'w'], [name], {}, { name })],
      outputs: [value(name, 'float16', ['rows', N])],
    });
  const nodes = [
    node('Gather', ['e', 'ids'], ['h'], {}, { name: 'e' }),
    node('If', ['flag'], ['i'], { then_branch: { graph: inner('then') }, else_branch: { graph: inner('else') } }),
    node('Transpose', ['e'], ['t']),
    node('MatMul', ['h', 't'], ['logits'], {}, { name: 'head' }),
    node('MatMul', ['h', 'w'], ['o'], {}, { name: 'outer' }),
    node('Add', ['i', 'o'], ['y']),
  ];
  const tensors = [tensor('e', 'float16', [300, k], half(300 * k, 1)), tensor('w', 'float16', [k, N], half(k * N, 2))];
  const bool = Buffer.from([0x0a, 4, ...Buffer.from('flag'), 0x12, 6, 0x0a, 4, 8, 9, 0x12, 0]);
  const inputs = [value('ids', 'int64', ['rows']), bool];
  const outputs = [value('y', 'float16', ['rows', N]), value('logits', 'float16', ['rows', 300])];
  writeFileSync(at('half.onnx'), model(graph({ nodes, tensors, inputs, outputs })));
  const feeds = {
    ids: new ort.Tensor('int64', BigInt64Array.of(0n, 299n, 5n), [3]),
    flag: new ort.Tensor('bool', Uint8Array.of(1), []),
  };
  const exact = await run(at('half.onnx'), feeds);
  const asFloats = ({ data }) => (data instanceof Uint16Array ? Array.from(data, fromHalf) : Array.from(data));
  for (const [options, most] of [
    [{ embeddings: 8, nbits: 8 }, 0.02],
    [{ embeddings: 4 }, 0.2],
    [{ zeroPoint: 'float', embeddings: 8 }, 0.15],
  ]) {
    await quantizeModel(at('half.onnx'), at('codes.onnx'), { ...options, groupSize: 32, force: true });
    const given = await run(at('codes.onnx'), feeds);
    for (const name of ['y', 'logits']) {
      const far = distance(asFloats(given[name]), asFloats(exact[name]));
      assert.ok(far < most, `${JSON.stringify(options)} ${name}: ${far}`);
    }
  }
});

function fromHalf(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
}

// A folder of transformers.js with a Llama in it.
const float = at('books');
mkdirSync(join(float, 'onnx'), { recursive: true });
for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json'])
  cpSync(join(SHIPPED, name), join(float, name));
const { bytes, config } = await llamaGraph(SHIPPED);
writeFileSync(join(float, 'onnx', 'model.onnx'), bytes);
const text = readFileSync(join(SHIPPED, 'alice.txt'), 'utf8').slice(0, 6000);

const { AutoTokenizer, env, pipeline } = await import('@huggingface/transformers');
Object.assign(env, { allowRemoteModels: false, localModelPath: `${folder}/` });
const tokenizer = await AutoTokenizer.from_pretrained('books');
const ids = tokenizer.encode(text).slice(0, 768);

async function perplexity(path) {
  const session = await open(path);
  let loss = 0;
  const windows = Math.floor(ids.length / 128);
  for (let i = 0; i < windows; i++) {
    const own = ids.slice(i * 128, (i + 1) * 128);
    loss += lossOf(await logitsOf(ort, session, config, own), own, config.vocab_size) / windows;
  }
  await session.release();
  return Math.exp(loss);
}

for (const [name, options, file, most, size] of [
  ['4 bits', { groupSize: 32 }, 'model_q4.onnx', 1.02, 3.4e6],
  ['4 bits, float zeros', { groupSize: 32, zeroPoint: 'float' }, 'model_q4.onnx', 1.02, 3.6e6],
  ['4 bits, everything', { groupSize: 32, embeddings: 4 }, 'model_q4.onnx', 1.04, 2.2e6],
  ['8 bits, everything', { nbits: 8, embeddings: 8 }, 'model_quantized.onnx', 1.001, 3.3e6],
]) {
  test(`a Llama of ${name} reads as the float one does`, async (t) => {
    const output = at(`books-${file}`);
    await quantizeModel(float, output, { ...options, force: true });
    const path = join(output, 'onnx', file);
    const [exact, given] = [await perplexity(join(float, 'onnx', 'model.onnx')), await perplexity(path)];
    t.diagnostic(`perplexity ${exact.toFixed(3)} -> ${given.toFixed(3)}, ${statSync(path).size} bytes`);
    assert.ok(given / exact < most, `${exact} -> ${given}`);
    assert.ok(statSync(path).size <= size);
  });

  test(`transformers.js writes text with ${name}`, async (t) => {
    const dtype = file.includes('q4') ? 'q4' : 'q8';
    const generate = await pipeline('text-generation', basename(at(`books-${file}`)), { dtype });
    const [{ generated_text: given }] = await generate('Alice was', { max_new_tokens: 12, do_sample: false });
    t.diagnostic(JSON.stringify(given));
    assert.ok(given.startsWith('Alice was') && given.length > 20);
    await generate.dispose();
  });
}

test('transformers.js embeds sentences with an encoder', async (t) => {
  const hidden = 128;
  const encoder = at('encoder');
  mkdirSync(join(encoder, 'onnx'), { recursive: true });
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) cpSync(join(SHIPPED, name), join(encoder, name));
  writeFileSync(join(encoder, 'config.json'), JSON.stringify({ model_type: 'bert', hidden_size: hidden }));
  const nodes = [
    node('Gather', ['table', 'input_ids'], ['h'], {}, { name: '/embeddings/word_embeddings/Gather' }),
    node('MatMul', ['h', 'w1'], ['a'], {}, { name: '/encoder/layer.0/intermediate/MatMul' }),
    node('Add', ['b1', 'a'], ['c'], {}, { name: '/encoder/layer.0/intermediate/Add' }),
    node('Tanh', ['c'], ['d']),
    node('MatMul', ['d', 'w2'], ['e'], {}, { name: '/encoder/layer.0/output/MatMul' }),
    node('Add', ['e', 'h'], ['last_hidden_state']),
  ];
  const tensors = [
    floats('table', [2048, hidden], gaussian(2048 * hidden, 1)),
    floats('w1', [hidden, 256], gaussian(hidden * 256, 2, 0.1)),
    floats('b1', [256], gaussian(256, 3)),
    floats('w2', [256, hidden], gaussian(hidden * 256, 4, 0.1)),
  ];
  const inputs = ['input_ids', 'attention_mask'].map((name) => value(name, 'int64', ['batch', 's']));
  const outputs = [value('last_hidden_state', 'float32', ['batch', 's', hidden])];
  writeFileSync(join(encoder, 'onnx', 'model.onnx'), model(graph({ nodes, tensors, inputs, outputs })));
  const embed = async (name, dtype) => {
    const extract = await pipeline('feature-extraction', name, { dtype });
    const { data } = await extract('A cat sat on the mat.', { pooling: 'mean', normalize: true });
    await extract.dispose();
    return data;
  };
  const exact = await embed('encoder', 'fp32');
  for (const [nbits, dtype, least] of [
    [8, 'q8', 0.9999],
    [4, 'q4', 0.98],
  ]) {
    const name = `encoder-${dtype}`;
    await quantizeModel(encoder, at(name), { nbits, embeddings: nbits === 8 ? 8 : 4, zeroPoint: 'float' });
    const given = await embed(name, dtype);
    const cosine = given.reduce((sum, one, i) => sum + one * exact[i], 0);
    t.diagnostic(`${nbits} bits: cosine ${cosine.toFixed(5)}`);
    assert.ok(cosine > least);
  }
});

test('importance of a graph is that of the same model in hqq/runtime', async (t) => {
  const options = { importance: 'random', tokens: 600, seed: 3 };
  const own = await collectImportance(float, options);
  const { meanSquares } = await collectImportance(SHIPPED, options);
  let most = 0;
  for (const [module, means] of meanSquares) {
    const found = own.meanSquares.get(`onnx::MatMul_${module}`) ?? own.meanSquares.get('model.embed_tokens');
    means.forEach((mean, i) => {
      most = Math.max(most, Math.abs(found[i] / mean - 1));
    });
  }
  t.diagnostic(`${meanSquares.size} layers, within ${most.toExponential(1)}`);
  assert.ok(meanSquares.size > 20 && most < 1e-4);
  const { source } = await collectImportance(float, { importance: { text }, tokens: 300 });
  assert.equal(source, 'text');
  const report = await quantizeModel(float, at('weighed'), { nbits: 2, groupSize: 32 });
  assert.equal(report.importance, 'random');
});

test('error feedback brings a Llama nearer to the float one', async (t) => {
  const output = at('refined');
  const options = { groupSize: 32, zeroPoint: 'float', importance: 'random', force: true };
  const own = ids.slice(0, 128);
  const logits = async (path) => {
    const session = await open(path);
    const given = await logitsOf(ort, session, config, own);
    await session.release();
    return given;
  };
  const exact = await logits(join(float, 'onnx', 'model.onnx'));
  const far = [];
  for (const refine of [false, true]) {
    await quantizeModel(float, output, { ...options, refine });
    far.push(divergenceOf(exact, await logits(join(output, 'onnx', 'model_q4.onnx')), config.vocab_size));
  }
  t.diagnostic(`divergence ${far.map((one) => one.toExponential(2)).join(' -> ')}`);
  assert.ok(far[1] < 0.9 * far[0], `${far}`);
});

test('importance of what follows products by large matrices, which are computed in pieces', async () => {
  const [k, n] = [1600, 12_000];
  const nodes = [
    node('MatMul', ['x', 'w'], ['a'], {}, { name: 'first' }),
    node('Transpose', ['w'], ['t']),
    node('MatMul', ['a', 't'], ['b'], {}, { name: 'tied' }),
    node('Gemm', ['b', 'g', 'c'], ['z'], { transB: 1 }, { name: 'biased' }),
    node('MatMul', ['z', 'v'], ['y'], {}, { name: 'last' }),
  ];
  const w = gaussian(k * n, 1, 0.02);
  const tensors = [floats('w', [k, n], w), floats('g', [n, k], w)];
  tensors.push(floats('c', [n], gaussian(n, 2)), floats('v', [n, 64], gaussian(n * 64, 3)));
  const outputs = Object.entries({ a: n, b: k, z: n, y: 64 }).map(([name, size]) =>
    value(name, 'float32', ['rows', size]),
  );
  const inputs = [value('x', 'float32', ['rows', k])];
  writeFileSync(at('large.onnx'), model(graph({ nodes, tensors, inputs, outputs })));
  const x = new ort.Tensor('float32', gaussian(3 * k, 4), [3, k]);
  const whole = await run(at('large.onnx'), { x });
  const { meanSquares } = await collectImportance(at('large.onnx'), { importance: { inputs: [{ x }] } });
  assert.deepEqual([...meanSquares.keys()].sort(), ['g', 'v']);
  for (const [name, width, { data }] of [
    ['g', k, whole.b],
    ['v', n, whole.z],
  ]) {
    const exact = Array.from({ length: width }, (_, i) =>
      [0, 1, 2].reduce((sum, row) => sum + data[row * width + i] ** 2 / 3, 0),
    );
    assert.ok(distance(meanSquares.get(name), exact) < 1e-5);
  }
});
