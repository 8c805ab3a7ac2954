import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { collectImportance } from '../../lib/calibrate/collect.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { Encoder, isEncoderModel } from '../../lib/runtime/encoder/encoder.js';
import { evaluateEncoders } from '../../lib/runtime/encoder/evaluate-encoders.js';
import { pool, readPooling } from '../../lib/runtime/encoder/pooling.js';
import { SentenceEncoder } from '../../lib/runtime/encoder/sentences.js';
import { hqq } from '../support/cli.js';
import { SHIPPED } from '../support/language-models.js';
import { safetensorsBytes } from '../support/models.js';
import { scratchFolder } from '../support/scratch.js';

// Small encoders as transformers computes them: scripts/golden-encoders.py writes the file.

interface Case {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  readonly hidden: readonly (readonly number[])[];
}

const golden = JSON.parse(readFileSync(new URL('../golden/encoders.json', import.meta.url), 'utf8')) as {
  readonly length: number;
  readonly shown: readonly number[];
  readonly cases: readonly Case[];
};
const scratch = scratchFolder('encoder');
const ids = Array.from({ length: golden.length }, (_, i) => 2 + ((i * i * 7 + i * 3) % 38));
const bert = join(scratch, 'bert');

/** The weights by the formula of the script: tensors in the order of their names. */
function weightsOf(shapes: Case['shapes']) {
  let state = 1;
  const next = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5;
  const sorted = Object.entries(shapes).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(
    sorted.map(([name, shape]) => {
      const scale = shape.length === 2 ? 4 / shape[1]! ** 0.5 : 1;
      const of = name.endsWith('LayerNorm.weight') ? (v: number) => 1 + v : (v: number) => v * scale;
      return [name, { shape, data: Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => of(next())) }];
    }),
  );
}

function write(folder: string, { config, shapes }: Case, change: object = {}): string {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, ...change }));
  writeFileSync(join(folder, 'model.safetensors'), safetensorsBytes(weightsOf(shapes)));
  return folder;
}

/** A tokenizer of WordPiece with as many words as the models have ids. */
function writeTokenizer(folder: string): void {
  const words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'the', 'sea', 'is', 'calm', '##er', 'a', 'ship'];
  const vocab = Object.fromEntries([...words, ...Array.from({ length: 29 }, (_, i) => `w${i}`)].map((w, i) => [w, i]));
  const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
  const single = [special('[CLS]'), { Sequence: { id: 'A', type_id: 0 } }, special('[SEP]')];
  const named = (id: string) => ({ id, ids: [vocab[id]], tokens: [id] });
  const tokenizer = {
    ...{ version: '1.0', truncation: null, padding: null, decoder: { type: 'WordPiece', prefix: '##', cleanup: true } },
    added_tokens: words.slice(0, 4).map((content, id) => ({ id, content, special: true })),
    normalizer: { type: 'BertNormalizer', clean_text: true, handle_chinese_chars: true, lowercase: true },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      ...{ type: 'TemplateProcessing', single, pair: single },
      special_tokens: { '[CLS]': named('[CLS]'), '[SEP]': named('[SEP]') },
    },
    model: {
      ...{ type: 'WordPiece', unk_token: '[UNK]', continuing_subword_prefix: '##', max_input_chars_per_word: 100 },
      vocab,
    },
  };
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
}

beforeAll(() => {
  write(bert, golden.cases[0]!);
  writeTokenizer(bert);
});

describe('hidden states of transformers', () => {
  test.each(golden.cases)('$name', async (one) => {
    const encoder = await Encoder.open(write(join(scratch, one.name.replaceAll(/\W/g, '-')), one));
    const { hiddenSize, layers } = encoder.config;
    const hidden = await encoder.embed(ids);
    for (let index = 0; index < layers; index++) await (await encoder.block(index)).run(hidden);
    golden.shown.forEach((row, i) => {
      const got = hidden.subarray(row * hiddenSize, (row + 1) * hiddenSize);
      one.hidden[i]!.forEach((want, at) => expect(got[at]!, `token ${row}, number ${at}`).toBeCloseTo(want, 4));
    });
    await encoder.close();
  });
});

describe('vectors of sentences', () => {
  test('are pooled as the folder says', async () => {
    const hidden = Float32Array.of(1, 2, 3, 6);
    expect([...pool(hidden, 2, { mode: 'cls', normalize: false })]).toEqual([1, 2]);
    expect([...pool(hidden, 2, { mode: 'mean', normalize: false })]).toEqual([2, 4]);
    expect([...pool(hidden, 2, { mode: 'max', normalize: false })]).toEqual([3, 6]);
    expect(Math.hypot(...pool(hidden, 2, { mode: 'mean', normalize: true }))).toBeCloseTo(1, 6);
    expect(await readPooling(bert)).toEqual({ mode: 'mean', normalize: true });
    const folder = join(scratch, 'pooled');
    mkdirSync(join(folder, '1_Pooling'), { recursive: true });
    const modules = ['Transformer', 'Pooling', 'Normalize'].map((name, i) => {
      return { type: `sentence_transformers.models.${name}`, path: i === 1 ? '1_Pooling' : '' };
    });
    const say = (pooling: object) => writeFileSync(join(folder, '1_Pooling', 'config.json'), JSON.stringify(pooling));
    writeFileSync(join(folder, 'modules.json'), JSON.stringify(modules.slice(0, 2)));
    say({ pooling_mode_cls_token: true, pooling_mode_mean_tokens: false });
    expect(await readPooling(folder)).toEqual({ mode: 'cls', normalize: false });
    writeFileSync(join(folder, 'modules.json'), JSON.stringify(modules));
    say({ pooling_mode_weightedmean_tokens: true });
    await expect(readPooling(folder)).rejects.toThrow(/pooling_mode_mean_tokens.*got pooling_mode_weightedmean_tokens/);
  });

  test('come of texts by WordPiece', async () => {
    const encoder = await SentenceEncoder.load(bert);
    expect(await encoder.encode('The sea is calmer')).toEqual([2, 4, 5, 6, 7, 8, 3]);
    const [a, b] = [await encoder.embed([2, 4, 5, 3]), await encoder.embed([2, 4, 5, 6, 7, 3])];
    expect(a).toHaveLength(encoder.width);
    expect(Math.hypot(...a)).toBeCloseTo(1, 5);
    expect([...a]).not.toEqual([...b]);
    await expect(encoder.embed(Array(65).fill(4) as number[])).rejects.toThrow(/1 to 64 token ids.*got 65/);
    await encoder.close();
    await expect(encoder.embed([2, 3])).rejects.toThrow(/the encoder to be open/);
  });
});

describe('importance of encoders', () => {
  test('is found for every linear layer, and the default where they are quantized', async () => {
    const { source, tokens, meanSquares } = await collectImportance(bert, { tokens: 100 });
    expect({ source, tokens }).toEqual({ source: 'random', tokens: 100 });
    expect(meanSquares.size).toBe(18);
    expect(meanSquares.get('encoder.layer.2.output.dense')).toHaveLength(48);
    const again = await collectImportance(bert, { tokens: 100, threads: 1 });
    expect(again.meanSquares).toEqual(meanSquares);
    const read = await collectImportance(bert, { importance: { text: 'the sea\n\na ship is calm\n' } });
    expect(read).toMatchObject({ source: 'text', tokens: 4 + 6 });
    const report = await quantizeModel(bert, join(scratch, 'q3'), { nbits: 3, groupSize: 16 });
    expect(report.importance).toBe('random');
    await expect(collectImportance(bert, { importance: 'own' })).rejects.toThrow(/writes text.*an encoder/);
    const refine = quantizeModel(bert, join(scratch, 'refined'), { nbits: 2, groupSize: 16, refine: true });
    await expect(refine).rejects.toThrow(/error feedback.*this is an encoder/);
  });
});

describe('evaluateEncoders', () => {
  test('tells how far vectors are from those of the original', async () => {
    const [q8, q2] = [join(scratch, 'e8'), join(scratch, 'e2')];
    await quantizeModel(bert, q8, { nbits: 8, groupSize: 16 });
    await quantizeModel(bert, q2, { nbits: 2, groupSize: 16 });
    const report = await evaluateEncoders(bert, [q8, q2], { ids, window: 10 });
    expect(report).toMatchObject({ source: 'ids', sentences: 4, tokens: 37, original: { cosine: 1, leastCosine: 1 } });
    const [fine, coarse] = report.quantized as [(typeof report.quantized)[0], (typeof report.quantized)[0]];
    expect(fine.cosine).toBeGreaterThan(0.999);
    expect(coarse.cosine).toBeLessThan(fine.cosine);
    expect(coarse.leastCosine).toBeLessThanOrEqual(coarse.cosine);
    const [own, other] = await Promise.all([bert, q2].map((path) => SentenceEncoder.load(path)));
    const cosines: number[] = [];
    for (let at = 0; at < 37; at += 10) {
      const [a, b] = await Promise.all([own!, other!].map((one) => one.embed(ids.slice(at, at + 10))));
      cosines.push(a!.reduce((sum, x, i) => sum + x * b![i]!, 0));
    }
    expect(coarse.cosine).toBeCloseTo(cosines.reduce((a, b) => a + b) / 4, 5);
    await Promise.all([own!.close(), other!.close()]);

    const text = join(scratch, 'text.txt');
    writeFileSync(text, 'the sea is calm\na ship\n');
    const { stdout } = await hqq(['evaluate', bert, q2, '--text', text], {});
    expect(stdout).toMatch(/2 sentences of a text, 10 tokens.*cosine +least/s);
    const { stdout: json } = await hqq(['evaluate', bert, q2, '--json', '--tokens', '64', '--window', '32'], {});
    expect(JSON.parse(json)).toMatchObject({ source: 'random', seed: 1, sentences: 2, tokens: 64 });
  });

  test('refuses what it cannot compare, and stops', async () => {
    const refused = async (change: object, message: RegExp) => {
      const path = write(join(scratch, 'bad'), golden.cases[0]!, change);
      await expect(evaluateEncoders(path, bert)).rejects.toThrow(message);
    };
    await refused({ is_decoder: true }, /is_decoder true is not supported/);
    await refused({ position_embedding_type: 'relative_key' }, /position_embedding_type.*absolute/);
    await refused({ hidden_act: 'swish' }, /hidden_act.*gelu/);
    await refused({ num_attention_heads: 5 }, /num_attention_heads to divide hidden_size 32/);
    await refused({ num_hidden_layers: 4 }, /no tensor encoder\.layer\.3/);
    await refused({ intermediate_size: 64 }, /intermediate\.dense\.weight to be 64 x 32.*got 48 x 32/);
    await expect(evaluateEncoders(SHIPPED, bert)).rejects.toThrow(/an encoder, of model_type bert.*got "?llama/);
    expect([await isEncoderModel(bert), await isEncoderModel(SHIPPED)]).toEqual([true, false]);
    const controller = new AbortController();
    let steps = 0;
    const stopped = evaluateEncoders(bert, bert, {
      signal: controller.signal,
      onProgress: () => {
        steps++;
        controller.abort();
      },
    });
    await expect(stopped).rejects.toThrow(expect.objectContaining({ name: 'AbortError' }));
    expect(steps).toBe(1);
  });
});

test('a head on top leaves names as they are', async () => {
  const folder = write(join(scratch, 'head'), golden.cases[2]!);
  const { meanSquares } = await collectImportance(folder, { tokens: 32 });
  expect(meanSquares.has('bert.encoder.layer.0.attention.self.query')).toBe(true);
});
