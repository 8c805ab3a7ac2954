import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { floats, gaussian, graph, model, node, read, value } from '../../interop/onnxruntime/graph.mjs';
import { openSource } from '../../lib/containers/list.js';
import { createModel, layoutSteps } from '../../lib/containers/onnx/layout.js';
import type { OnnxSource } from '../../lib/containers/onnx/source.js';
import { atOnce } from '../../lib/files/event-loop.js';
import { compareModels } from '../../lib/models/compare.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { expectError } from '../containers/helpers.js';
import { freshPath } from '../support/checkpoints.js';
import { compute, distance } from '../support/onnx.js';

const [K, N, V] = [128, 160, 200];
const OUT = [value('y', 'float32', ['rows', N])];
const IDS = { ids: { shape: [3], data: [1, 0, 199] } };

/** A model with every kind of node that becomes codes. */
function network(seed = 1, before = ''): Buffer {
  const own = (name: string) => before + name;
  const embed = floats(own('embed'), [V, K], gaussian(V * K, seed));
  const w = floats(own('w'), [K, N], gaussian(K * N, seed + 1, 0.05));
  const b = floats(own('b'), [N], gaussian(N, 3));
  const nodes = [
    node('Gather', [own('embed'), 'ids'], ['h'], {}, { name: 'Gather' }),
    node('MatMul', ['h', own('w')], ['m'], {}, { name: '/layer/MatMul' }),
    node('Add', ['m', own('b')], ['y'], {}, { name: '/layer/Add' }),
    node('Transpose', [own('embed')], ['t']),
    node('MatMul', ['h', 't'], ['logits'], {}, { name: '/lm_head/MatMul' }),
  ];
  return model(graph({ nodes, tensors: [embed, w, b], outputs: [...OUT, value('logits', 'float32', ['rows', V])] }));
}

function folderOf(models: Readonly<Record<string, Buffer>>): string {
  const path = freshPath('folder');
  fs.mkdirSync(join(path, 'onnx'), { recursive: true });
  for (const [name, bytes] of Object.entries(models)) fs.writeFileSync(join(path, 'onnx', name), bytes);
  fs.writeFileSync(
    join(path, 'config.json'),
    '{\n  "model_type": "llama",\n  "transformers.js_config": {"kv_cache_dtype": {}}\n}\n',
  );
  fs.writeFileSync(join(path, 'tokenizer.json'), '{}');
  return path;
}

const configOf = (path: string) => JSON.parse(fs.readFileSync(join(path, 'config.json'), 'utf8'));

describe('a folder of transformers.js', () => {
  for (const [nbits, name, type] of [
    [4, 'model_q4.onnx', 'q4'],
    [8, 'model_quantized.onnx', 'q8'],
    [2, 'model_q2.onnx', 'q2'],
  ] as const) {
    it(`becomes one of ${nbits} bits, called as transformers.js looks for it`, async () => {
      const input = folderOf({ 'model.onnx': network(), 'model_fp16.onnx': Buffer.from('another form') });
      const output = freshPath('out');
      const { notes } = await quantizeModel(input, output, { nbits });
      expect(fs.readdirSync(join(output, 'onnx'))).toEqual([name]);
      expect(fs.readdirSync(output).sort()).toEqual(['config.json', 'onnx', 'tokenizer.json']);
      expect(configOf(output)).toEqual({
        model_type: 'llama',
        'transformers.js_config': { kv_cache_dtype: {}, dtype: type },
      });
      expect(notes.join()).toMatch(/Not carried over.*model_fp16\.onnx/);
      expect((await compareModels(input, output)).tensors).toHaveLength(1);
      await quantizeModel(input, output, { nbits, force: true });
    });
  }

  it('may hold several models', async () => {
    const input = folderOf({ 'encoder_model.onnx': network(1), 'decoder_model_merged.onnx': network(5) });
    const output = freshPath('out');
    const report = await quantizeModel(input, output, {
      embeddings: 8,
      overrides: { 'encoder_model/*': { groupSize: 32 } },
    });
    expect(fs.readdirSync(join(output, 'onnx'))).toEqual(['decoder_model_merged_q4.onnx', 'encoder_model_q4.onnx']);
    expect(report.tensors.map(({ name, config }) => `${name} ${config.groupSize}`).sort()).toEqual([
      ...['decoder_model_merged/embed 64', 'decoder_model_merged/w 64', 'encoder_model/embed 32', 'encoder_model/w 32'],
    ]);
    const { totals, tensors, dense } = await compareModels(input, output);
    expect(tensors).toHaveLength(4);
    expect(dense.different).toEqual([]);
    expect(totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
  });

  it('becomes one that holds several forms, each as a run of its own makes it', async () => {
    const models = { 'encoder_model.onnx': network(1), 'decoder_model_merged.onnx': network(5) };
    const input = folderOf(models);
    const output = freshPath('out');
    const options = { embeddings: 8, overrides: { 'encoder_model/w': { groupSize: 32 } } } as const;
    const dry = await quantizeModel(input, output, { ...options, widths: [8, 4], dryRun: true });
    const report = await quantizeModel(input, output, { ...options, widths: [8, 4] });
    expect(report.tensors.map(({ name }) => name)).toEqual(dry.tensors.map(({ name }) => name));
    expect(report.tensors).toHaveLength(8);
    expect(report.totals.bytesAfter).toBe(dry.totals.bytesAfter);
    const type = configOf(output)['transformers.js_config'].dtype;
    expect(type).toBe('q8');
    expect(fs.readdirSync(join(output, 'onnx'))).toHaveLength(4);
    for (const nbits of [8, 4] as const) {
      const alone = freshPath('alone');
      await quantizeModel(input, alone, { ...options, nbits });
      for (const name of fs.readdirSync(join(alone, 'onnx')))
        expect(fs.readFileSync(join(output, 'onnx', name)).equals(fs.readFileSync(join(alone, 'onnx', name)))).toBe(
          true,
        );
    }
  });

  it('is compared with several forms of itself, each with its own; files are, one by one', async () => {
    const [input, output] = [folderOf({ 'model.onnx': network() }), freshPath('out')];
    const report = await quantizeModel(input, output, { widths: [8, 4], embeddings: 8 });
    const { totals, tensors, dense } = await compareModels(input, output);
    expect(tensors.map(({ name }) => name).sort()).toEqual(report.tensors.map(({ name }) => name).sort());
    expect(totals.relativeError).toBeCloseTo(report.totals.relativeError, 6);
    expect(dense.different).toEqual([]);
    const [exact, quantized] = [join(input, 'onnx/model.onnx'), join(output, 'onnx/model_q4.onnx')];
    const advice = /Pass one file of each: .*model\.onnx and .*model_(q4|quantized)\.onnx\.$/;
    await expectError(() => compareModels(exact, output), 'ERR_CHECKPOINT_CONTENT', advice);
    expect((await compareModels(exact, quantized)).tensors).toHaveLength(2);
    expect((await compareModels(input, quantized)).tensors).toHaveLength(2);
  });

  it('is compared with the forms that are there, and a model of which none is is missing once', async () => {
    const models = { 'encoder_model.onnx': network(1), 'decoder_model_merged.onnx': network(5) };
    const [input, output] = [folderOf(models), freshPath('out')];
    await quantizeModel(input, output, { widths: [4, 8], embeddings: 8 });
    const compared = async () => {
      const { tensors, dense } = await compareModels(input, output);
      return { tensors: tensors.map(({ name }) => name).sort(), different: [...dense.different].sort() };
    };
    const decoder = ['decoder_model_merged_q4', 'decoder_model_merged_quantized'];
    const layers = (names: readonly string[]) => names.flatMap((name) => [`${name}/embed`, `${name}/w`]);
    fs.rmSync(join(output, 'onnx/encoder_model_quantized.onnx'));
    expect(await compared()).toEqual({ tensors: layers([...decoder, 'encoder_model_q4']), different: [] });
    fs.rmSync(join(output, 'onnx/encoder_model_q4.onnx'));
    const different = ['encoder_model/b', 'encoder_model/embed', 'encoder_model/w'];
    expect(await compared()).toEqual({ tensors: layers(decoder), different });
  });

  it('is compared by its float models where it has some, and the report names the rest', async () => {
    const [input, output] = [folderOf({ 'model.onnx': network() }), freshPath('out')];
    await quantizeModel(input, output);
    expect((await compareModels(input, output)).notes).toEqual([]);
    fs.cpSync(join(input, 'onnx/model.onnx'), join(output, 'onnx/model.onnx'));
    const { tensors, notes } = await compareModels(input, output);
    expect(tensors).toEqual([]);
    expect(notes).toEqual([
      expect.stringMatching(/^Only the float models of .* not "onnx\/model_q4\.onnx": pass the file/),
    ]);
  });

  it('is advised to be compared file by file whatever its tensors are called', async () => {
    const [input, output] = [folderOf({ 'model.onnx': network(1, '/model/layers.0/') }), freshPath('out')];
    await quantizeModel(input, output, { widths: [4, 8] });
    const advice = /Pass one file of each: .*model\.onnx and .*model_(q4|quantized)\.onnx\.$/;
    await expectError(() => compareModels(join(input, 'onnx/model.onnx'), output), 'ERR_CHECKPOINT_CONTENT', advice);
  });

  it('has several forms by patterns with and without their names', async () => {
    const input = folderOf({ 'model.onnx': network() });
    const options = { widths: [4, 8], include: ['w', '/lm_head/*'] } as const;
    const overrides = { 'model_q4/w': { groupSize: 16 }, embed: { groupSize: 128 } };
    const { tensors } = await quantizeModel(input, freshPath('out'), { ...options, embeddings: 4, overrides });
    expect(tensors.map(({ name, config: { nbits, groupSize } }) => `${name} ${nbits} ${groupSize}`).sort()).toEqual([
      ...['model_q4/embed 4 128', 'model_q4/w 4 16', 'model_quantized/embed 4 128', 'model_quantized/w 8 64'],
    ]);
  });

  it('has several forms only where an output can hold them', async () => {
    const [input, output] = [folderOf({ 'model.onnx': network() }), freshPath('out')];
    const refused = (from: string, options: Parameters<typeof quantizeModel>[2], pattern: RegExp) =>
      expectError(() => quantizeModel(from, output, options), 'ERR_INVALID_OPTION', pattern);
    await refused(join(input, 'onnx', 'model.onnx'), { widths: [4, 8] }, /transformers\.js folder/);
    await refused(input, { widths: [4, 8], nbits: 4 }, /nbits or widths, got both/);
    await refused(input, { widths: [4, 3] }, /nbits .*one of 8, 4, 2/);
    await refused(input, { widths: [4, 4] }, /different ones/);
    expect(fs.existsSync(output)).toBe(false);
  });

  it('is one only where no other format is there', async () => {
    const path = folderOf({ 'model.onnx': network() });
    const source = await openSource(path);
    expect(source.container).toBe('onnx');
    await source.close();
    fs.writeFileSync(join(path, 'model.safetensors'), '');
    await expectError(() => openSource(path), 'ERR_CHECKPOINT_FORMAT', /safetensors/);
  });
});

it('splits tensors that browsers could not load as one file, and reads them again', async () => {
  const input = folderOf({ 'model.onnx': network() });
  const source = (await openSource(input)) as OnnxSource;
  const specs = [...source.entries.values()];
  const changed = source.envelope.replace({ layers: [], set: {}, drop: [] });
  const [file] = source.files.map(({ name }) => name) as [string];
  // embed, of 102,400 bytes, is larger than a file may be; w has 81,920, b less than a tensor that is put aside.
  const draft = { ...changed.draftOf(file), name: 'model.onnx', apart: true, chunkBytes: 90_000 };
  const layout = atOnce(layoutSteps(file, specs, draft));
  expect(layout.data.map(({ fileSize }) => fileSize)).toEqual([V * K * 4, K * N * 4]);
  expect(specs.map(({ name }) => layout.entries.has(name))).toEqual(specs.map(() => true));
  const output = folderOf({});
  const sink = await createModel(join(output, 'onnx', 'model.onnx'), layout, 0o644);
  for (const entry of specs) {
    const bytes = new Uint8Array(entry.end - entry.begin);
    source.readSync(entry, 0, bytes);
    await sink.write(entry.name, 0, bytes);
  }
  await sink.finish();
  expect(fs.readdirSync(join(output, 'onnx'))).toEqual(['model.onnx', 'model.onnx_data', 'model.onnx_data_1']);
  const [said] = [...changed.companions()].filter(({ name }) => name === 'config.json') as { text: string }[];
  expect(JSON.parse(said!.text)['transformers.js_config'].use_external_data_format).toEqual({ 'model.onnx': 2 });
  await source.close();
  const { dense } = await compareModels(input, output);
  expect(dense).toMatchObject({ different: [], equal: specs.length });
  await quantizeModel(output, freshPath('out'));
  const endless = { ...draft, chunkBytes: Infinity };
  expect(atOnce(layoutSteps(file, specs, endless)).data).toHaveLength(1);
});

describe('a model that is turned back', () => {
  for (const options of [
    {},
    { zeroPoint: 'float' },
    { embeddings: 8 },
    { zeroPoint: 'float', embeddings: 4, groupSize: 32 },
  ] as const) {
    it(`computes what its codes did: ${JSON.stringify(options)}`, async () => {
      const input = freshPath('model.onnx');
      fs.writeFileSync(input, network());
      const [codes, back] = [freshPath('q.onnx'), freshPath('back.onnx')];
      await quantizeModel(input, codes, options);
      await dequantizeModel(codes, back);
      const [quantized, plain] = [read(fs.readFileSync(codes)), read(fs.readFileSync(back))];
      expect(new Set(plain.nodes.map(({ op }) => op))).toEqual(new Set(['Gather', 'MatMul', 'Add', 'Transpose']));
      expect(Object.keys(plain.tensors).sort()).toEqual(['b', 'embed', 'w']);
      for (const name of ['y', 'logits'])
        expect(distance(compute(plain, IDS)[name]!.data, compute(quantized, IDS)[name]!.data)).toBeLessThan(1e-5);
      // It may be quantized again, as the original may.
      await quantizeModel(back, codes, { ...options, force: true });
    });
  }

  it('is a folder of floats again', async () => {
    const [codes, back] = [freshPath('out'), freshPath('back')];
    await quantizeModel(folderOf({ 'model.onnx': network() }), codes);
    await dequantizeModel(codes, back);
    expect(fs.readdirSync(join(back, 'onnx'))).toEqual(['model.onnx']);
    expect(configOf(back)['transformers.js_config'].dtype).toBe('fp32');
  });
});
