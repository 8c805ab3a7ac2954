import * as fs from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { openModel } from '../../lib/models/model.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import {
  beside,
  encode,
  failure,
  freshPath,
  llama,
  modelFile,
  modelFolder,
  randomTensor,
  type Source,
} from '../support/checkpoints.js';

// What lies beside the weights of a model, or in their place.

const CONFIG = '{"base_model_name_or_path": "org/base", "peft_type": "LORA"}';

/** As peft saves an adapter, with a module that was trained whole. */
const LORA: Source = {
  'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight': randomTensor([8, 64], 1),
  'base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight': randomTensor([64, 8], 2),
  'base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector': randomTensor([64], 2),
  'base_model.model.lm_head.weight': randomTensor([40, 64], 3),
};

function folderOf(files: Readonly<Record<string, string | Uint8Array>>): string {
  const folder = freshPath('folder');
  fs.mkdirSync(folder);
  for (const [name, data] of Object.entries(files)) fs.writeFileSync(join(folder, name), data);
  return folder;
}

async function refusal(path: string): Promise<string> {
  const out = freshPath();
  const error = await failure(() => quantizeModel(path, out, { force: true }));
  expect(error.code, error.message).toBe('ERR_CHECKPOINT_CONTENT');
  expect(beside(out)).toEqual([]);
  return error.message;
}

describe('an adapter alone', () => {
  it('is refused, with the call that merges it', async () => {
    const folder = folderOf({ 'adapter_config.json': CONFIG, 'adapter_model.safetensors': encode(LORA) });
    const message = await refusal(folder);
    expect(message).toMatch(
      /folder is an adapter, not a model: its tensors are such as "base_model\.[^"]*lora_A\.weight"/,
    );
    const call = `AutoPeftModelForCausalLM.from_pretrained(${JSON.stringify(folder)}).merge_and_unload().save_pretrained("merged")`;
    expect(message).toContain(call);
    expect(await refusal(join(folder, 'adapter_model.safetensors'))).toContain(call);
  });

  it('is known by its tensors, whatever its file is called, and by its file, whatever its tensors', async () => {
    expect(await refusal(modelFile(LORA))).toMatch(/is an adapter/);
    const prompt = folderOf({ 'adapter_model.safetensors': encode({ prompt_embeddings: randomTensor([8, 64], 1) }) });
    expect(await refusal(prompt)).toMatch(/is an adapter, not a model: its tensors are such as "prompt_embeddings"/);
    const strange = folderOf({ 'adapter_model.safetensors': encode({ 'x.weight': randomTensor([8, 64], 1) }) });
    expect(await refusal(strange)).toMatch(
      /is an adapter, not a model: it holds adapter_model\.safetensors alone.* If it holds a whole model, rename the file to model/,
    );
    fs.renameSync(join(strange, 'adapter_model.safetensors'), join(strange, 'model.safetensors'));
    await quantizeModel(strange, freshPath());
    const kohya = {
      'lora_unet_mid_attn.lora_down.weight': randomTensor([8, 64], 1),
      'lora_unet_mid_attn.lora_up.weight': randomTensor([64, 8], 1),
      'lora_unet_mid_attn.alpha': randomTensor([], 1),
    };
    expect(await refusal(modelFile(kohya))).toMatch(/is an adapter/);
    const lokr = {
      'base_model.model.q_proj.lokr_w1': randomTensor([8, 8], 1),
      'base_model.model.q_proj.lokr_w2_a': randomTensor([8, 8], 1),
    };
    expect(await refusal(modelFile(lokr))).toMatch(/is an adapter/);
    const vera = { 'base_model.vera_A': randomTensor([8, 64], 1), 'base_model.vera_B': randomTensor([64, 8], 1) };
    expect(await refusal(modelFile(vera))).toMatch(/is an adapter/);
    const ia3 = { 'layers.0.mlp.down_proj.ia3_l': randomTensor([1, 64], 1) };
    expect(await refusal(modelFile(ia3))).toMatch(/is an adapter/);
  });

  it('of MLX names the tool of MLX', async () => {
    const lora = {
      'model.layers.0.q_proj.lora_a': randomTensor([64, 8], 1),
      'model.layers.0.q_proj.lora_b': randomTensor([8, 64], 1),
    };
    const folder = folderOf({ 'adapter_config.json': '{}', 'adapters.safetensors': encode(lora) });
    expect(await refusal(folder)).toMatch(/is an adapter.*mlx_lm\.fuse/);
  });

  it('is not what has low-rank layers of its own', async () => {
    const source = { ...llama(), 'model.layers.0.q_proj.lora_A.speech.weight': randomTensor([64, 64], 1) };
    await quantizeModel(modelFolder([source]), freshPath(), { dryRun: true });
    const model = await openModel(folderOf({ 'adapter_model.safetensors': encode(LORA) }));
    expect(model.names).toHaveLength(4);
    await model.close();
  });
});

describe('an adapter within a model, not merged', () => {
  const at = 'model.layers.0.self_attn.q_proj';
  const { [`${at}.weight`]: weight, ...others } = llama();
  const small = (rows: number, cols: number) => randomTensor([rows, cols], 1);
  it.each<[string, Source]>([
    ['LoRA around its layer', { [`${at}.base_layer.weight`]: weight!, [`${at}.lora_A.default.weight`]: small(8, 64) }],
    [
      'LoRA beside its layer',
      { [`${at}.weight`]: weight!, [`${at}.lora_A.weight`]: small(8, 64), [`${at}.lora_B.weight`]: small(64, 8) },
    ],
    [
      'LoRA of an embedding',
      {
        ...{ [`${at}.weight`]: weight!, 'model.embed_tokens.lora_embedding_A.default': small(8, 40) },
        'model.embed_tokens.lora_embedding_B.default': small(64, 8),
      },
    ],
    ['DoRA', { [`${at}.weight`]: weight!, [`${at}.lora_magnitude_vector.default.weight`]: randomTensor([64], 1) }],
    ['IA3', { [`${at}.weight`]: weight!, [`${at}.ia3_l.default`]: small(64, 1) }],
    ['LoHa', { [`${at}.weight`]: weight!, [`${at}.hada_w1_a.default`]: small(64, 8) }],
    ['VeRA', { [`${at}.weight`]: weight!, [`${at}.vera_lambda_b.default`]: randomTensor([64], 1) }],
    ['a module trained whole', { [`${at}.weight`]: weight!, 'lm_head.modules_to_save.default.weight': small(40, 64) }],
  ])('is refused, with what merges it: %s', async (_, added) => {
    expect(await refusal(modelFolder([{ ...others, ...added }]))).toMatch(
      /holds an adapter that is not merged: it has tensors such as "[^"]+"\. Load it with peft as it was made, merge .*merge_and_unload/,
    );
  });
});

describe('what another tool says of a model', () => {
  it('is left out where its weights are floats, and told', async () => {
    const files = { 'hf_quant_config.json': '{}', 'quanto_qmap.json': '{}', 'tokenizer.json': '{}' };
    const out = freshPath();
    const { notes } = await quantizeModel(modelFolder([llama()], { files }), out);
    expect(fs.readdirSync(out).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect(notes.filter((note) => note.includes('another tool'))).toEqual([
      'Not carried over, as what another tool says of how it has quantized the model: "hf_quant_config.json", "quanto_qmap.json".',
    ]);
  });

  it('is believed of a part of the model, too', async () => {
    const config = JSON.stringify({ text_config: { quantization_config: { quant_method: 'fp8' } } });
    expect(await refusal(modelFolder([llama()], { config }))).toMatch(
      /is quantized already, as it says: its config\.json has a text_config\.quantization_config of method "?fp8"?\. All its tensors are floats\..*remove text_config\.quantization_config from config\.json/,
    );
  });
});

describe('an adapter beside a model', () => {
  const files = {
    'adapter_config.json': CONFIG,
    'adapter_model.safetensors': encode(LORA),
    'speech/adapter_config.json': CONFIG,
    'speech/adapter_model.bin': 'weights',
    'tokenizer.json': '{}',
    'speech/readme.txt': 'text',
  };

  it('is left out whole, weights and description, and a note says so', async () => {
    const out = freshPath();
    const { notes } = await quantizeModel(modelFolder([llama()], { files }), out);
    const kept = ['config.json', 'model.safetensors', 'speech', join('speech', 'readme.txt'), 'tokenizer.json'];
    expect((fs.readdirSync(out, { recursive: true }) as string[]).sort()).toEqual(kept);
    const told = notes.filter((note) => note.includes('adapter'));
    expect(told).toEqual([
      'Not carried over, as what belongs to an adapter: "adapter_config.json", "adapter_model.safetensors", ' +
        '"speech/adapter_config.json", "speech/adapter_model.bin". To have it in, merge it into the model first; or load it onto the ' +
        'output, from where it is (peft: PeftModel.from_pretrained).',
    ]);
    expect(notes.some((note) => note.includes('weights in other formats'))).toBe(false);
  });

  it('as it is where a model is turned back', async () => {
    const quantized = freshPath();
    await quantizeModel(modelFolder([llama()]), quantized);
    fs.writeFileSync(join(quantized, 'adapter_config.json'), CONFIG);
    const back = freshPath();
    await dequantizeModel(quantized, back);
    expect(fs.readdirSync(back).sort()).toEqual(['config.json', 'model.safetensors']);
  });
});

describe('model.safetensors beside the shards of an index', () => {
  const shards = () => {
    const { 'lm_head.weight': head, ...rest } = llama();
    return [{ 'lm_head.weight': head! }, rest];
  };
  const withFile = (tensors: Source) => modelFolder(shards(), { files: { 'model.safetensors': encode(tensors) } });

  it('is refused where it holds other tensors: the file is named', async () => {
    const gptq = {
      'model.layers.0.self_attn.q_proj.qweight': { dtype: 'I32', shape: [8, 64], bytes: new Uint8Array(2048) },
      'model.embed_tokens.weight': randomTensor([40, 64], 1),
    };
    const message = await refusal(withFile(gptq));
    expect(message).toMatch(
      /holds two models: model\.safetensors holds "model\.layers\.0\.self_attn\.q_proj\.qweight", and does not belong/,
    );
    expect(message).toMatch(
      /the 2 shards of model\.safetensors\.index\.json\. transformers would load it in their place\. Move away/,
    );
    const scales = Object.keys(llama()).map((name) => [name.replace(/weight$/, 'scales'), randomTensor([4], 1)]);
    expect(await refusal(withFile({ ...llama(), ...Object.fromEntries(scales) }))).toMatch(/two models/);
    expect(await refusal(withFile({ 'model.norm.weight': randomTensor([64], 1) }))).toMatch(/lacks 14 of 15 tensors/);
    expect((await failure(() => openModel(withFile(gptq)))).message).toMatch(/two models/);
  });

  it('is the model where both hold the same, or all but the head, or the shards are not whole', async () => {
    const { 'lm_head.weight': _, ...rest } = llama();
    const broken = withFile({ 'a.weight': randomTensor([64, 64], 1) });
    fs.rmSync(join(broken, 'model-00002-of-00002.safetensors'));
    const garbled = withFile({ 'a.weight': randomTensor([64, 64], 1) });
    fs.writeFileSync(join(garbled, 'model.safetensors.index.json'), 'junk');
    for (const folder of [withFile(llama()), withFile(rest), broken, garbled]) {
      const model = await openModel(folder);
      await model.close();
      const { tensors } = await quantizeModel(folder, freshPath(), { dryRun: true });
      expect(tensors.length).toBeGreaterThan(0);
    }
  });
});

describe("weights in the names of Mistral's code", () => {
  const weights = encode({ 'layers.0.attention.wq.weight': randomTensor([64, 64], 1) });

  it('alone are refused as a folder, and taken as a file', async () => {
    const folder = folderOf({ 'consolidated.safetensors': weights, 'params.json': '{}' });
    expect(await refusal(folder)).toMatch(
      /in "consolidated\.safetensors", in the names of Mistral's own code.*Fetch the model's model\.safetensors/,
    );
    const { tensors } = await quantizeModel(join(folder, 'consolidated.safetensors'), freshPath('x.safetensors'), {
      dryRun: true,
    });
    expect(tensors).toHaveLength(1);
    const several = {
      'consolidated-00001-of-00002.safetensors': weights,
      'consolidated-00002-of-00002.safetensors': weights,
    };
    expect(await refusal(folderOf(several))).toMatch(/and "consolidated|consolidated-00002/);
  });

  it('beside a model are left out, and told', async () => {
    const out = freshPath();
    const { notes } = await quantizeModel(
      modelFolder([llama()], { files: { 'consolidated.safetensors': weights } }),
      out,
    );
    expect(fs.readdirSync(out).sort()).toEqual(['config.json', 'model.safetensors']);
    expect(notes.join()).toMatch(/Not carried over \(weights that are not the model's.*"consolidated\.safetensors"/);
  });
});
