import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { collectImportance } from '../../lib/calibrate/collect.js';
import { quantizeModel } from '../../lib/calibrate/weighing/quantize.js';
import { Encoder, isEncoderModel } from '../../lib/runtime/encoder/encoder.js';
import { evaluateEncoders } from '../../lib/runtime/encoder/evaluate-encoders.js';
import { pool, readPooling } from '../../lib/runtime/encoder/pooling.js';
import { SentenceEncoder } from '../../lib/runtime/encoder/sentences.js';
import { hqq } from '../support/cli.js';
import { GOLDEN_ENCODERS, writeEncoder, writeTokenizer } from '../support/golden-encoders.js';
import { SHIPPED } from '../support/language-models.js';
import { scratchFolder } from '../support/scratch.js';

const scratch = scratchFolder('encoder');
const ids = Array.from({ length: GOLDEN_ENCODERS.length }, (_, i) => 2 + ((i * i * 7 + i * 3) % 38));
const bert = join(scratch, 'bert');

beforeAll(() => {
  writeEncoder(bert, GOLDEN_ENCODERS.cases[0]!);
  writeTokenizer(bert);
});

describe('hidden states of transformers', () => {
  test.each(GOLDEN_ENCODERS.cases)('$name', async (one) => {
    const encoder = await Encoder.open(writeEncoder(join(scratch, one.name.replaceAll(/\W/g, '-')), one));
    const { hiddenSize, layers } = encoder.config;
    const hidden = await encoder.embed(ids);
    for (let index = 0; index < layers; index++) await (await encoder.block(index)).run(hidden);
    GOLDEN_ENCODERS.shown.forEach((row, i) => {
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
      const path = writeEncoder(join(scratch, 'bad'), GOLDEN_ENCODERS.cases[0]!, change);
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
  const folder = writeEncoder(join(scratch, 'head'), GOLDEN_ENCODERS.cases[2]!);
  const { meanSquares } = await collectImportance(folder, { tokens: 32 });
  expect(meanSquares.has('bert.encoder.layer.0.attention.self.query')).toBe(true);
});
