import * as fs from 'node:fs';
import { describe, expect, it } from 'vitest';
import { foreignLayers } from '../../lib/containers/safetensors/foreign.js';
import { storedType } from '../../lib/containers/stored-types.js';
import { dequantizeModel } from '../../lib/models/dequantize.js';
import { quantizeModel } from '../../lib/models/quantize/quantize.js';
import { planConversion } from '../../lib/models/quantize/shards.js';
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
  type SourceTensor,
} from '../support/checkpoints.js';

// Layers as other tools store them, [out, in] = [64, 128]: names, types and shapes of their tensors. Where each tool's were read
// stands with its marks in lib/containers/safetensors/foreign.ts. Of MLX 0.32, bitsandbytes 0.50, quanto 0.2.7, torchao 0.18,
// compressed-tensors 0.20 (packed, int8, FP8, NVFP4) and ModelOpt 0.47 (NVFP4, FP8, int8) layers that the tools themselves had
// quantized and saved had just these.

const BYTES: Readonly<Record<string, number>> = {
  F32: 4,
  I32: 4,
  U32: 4,
  I64: 8,
  F16: 2,
  BF16: 2,
  I16: 2,
  F6_E2M3: 0.75,
};
const t = (dtype: string, ...shape: number[]): SourceTensor => {
  const count = shape.reduce((product, size) => product * size, 1);
  return { dtype, shape, bytes: new Uint8Array(count * (BYTES[dtype] ?? 1)) };
};

interface Example {
  readonly tool: string;
  readonly layer: Source;
}

const EXAMPLES: Readonly<Record<string, Example>> = {
  'GPTQ, v1 and v2': {
    tool: 'GPTQ',
    layer: { qweight: t('I32', 16, 64), qzeros: t('I32', 2, 8), scales: t('F16', 2, 64), g_idx: t('I32', 128) },
  },
  'GPTQ without g_idx (auto-round)': {
    tool: 'GPTQ',
    layer: { qweight: t('I32', 16, 64), qzeros: t('I32', 2, 8), scales: t('F16', 2, 64) },
  },
  AWQ: { tool: 'AWQ', layer: { qweight: t('I32', 128, 8), qzeros: t('I32', 2, 8), scales: t('F16', 2, 64) } },
  'AWQ gemv_fast': {
    tool: 'AWQ gemv_fast',
    layer: { qweight: t('I16', 16, 128), qzeros: t('F16', 8, 64), scales: t('F16', 8, 64) },
  },
  'AWQ of llm-awq': {
    tool: 'AWQ of llm-awq',
    layer: { qweight: t('I16', 16, 128), scales: t('F16', 8, 64), scaled_zeros: t('F16', 8, 64) },
  },
  'compressed-tensors, packed': {
    tool: 'compressed-tensors',
    layer: { weight_packed: t('I32', 64, 16), weight_scale: t('BF16', 64, 2), weight_shape: t('I64', 2) },
  },
  'compressed-tensors, packed with zero points': {
    tool: 'compressed-tensors',
    layer: {
      ...{ weight_packed: t('I32', 64, 16), weight_scale: t('BF16', 64, 2), weight_zero_point: t('I32', 8, 2) },
      ...{ weight_shape: t('I64', 2), weight_g_idx: t('I32', 128) },
    },
  },
  'compressed-tensors, NVFP4': {
    tool: 'compressed-tensors nvfp4 or mxfp4',
    layer: {
      ...{ weight_packed: t('U8', 64, 64), weight_scale: t('F8_E4M3', 64, 8) },
      ...{ weight_global_scale: t('F32', 1), input_global_scale: t('F32', 1) },
    },
  },
  'compressed-tensors, int8': {
    tool: 'compressed-tensors int-quantized',
    layer: { weight: t('I8', 64, 128), weight_scale: t('BF16', 64, 1) },
  },
  'compressed-tensors, FP8 by channel': {
    tool: 'FP8 \\(compressed-tensors',
    layer: { weight: t('F8_E4M3', 64, 128), weight_scale: t('BF16', 64, 1) },
  },
  'compressed-tensors, not packed': {
    tool: 'compressed-tensors naive-quantized',
    layer: { weight: t('BF16', 64, 128), weight_scale: t('BF16', 64, 2), weight_zero_point: t('I8', 64, 2) },
  },
  'compressed-tensors, sparse': {
    tool: 'compressed-tensors sparse-bitmask',
    layer: { compressed: t('BF16', 64, 64), bitmask: t('U8', 64, 16), shape: t('I64', 2), row_offsets: t('I64', 64) },
  },
  'ModelOpt NVFP4': {
    tool: 'ModelOpt NVFP4',
    layer: {
      ...{ weight: t('U8', 64, 64), weight_scale: t('F8_E4M3', 64, 8), weight_scale_2: t('F32') },
      input_scale: t('F32'),
    },
  },
  'ModelOpt NVFP4, experts': {
    tool: 'ModelOpt NVFP4',
    layer: {
      ...{ gate_up_proj: t('U8', 2, 64, 64), gate_up_proj_weight_scale: t('F8_E4M3', 2, 64, 8) },
      gate_up_proj_weight_scale_2: t('F32', 2),
    },
  },
  'ModelOpt FP8': {
    tool: 'ModelOpt FP8',
    layer: { weight: t('F8_E4M3', 64, 128), weight_scale: t('F32'), input_scale: t('F32') },
  },
  'FP8 with one scale': {
    tool: 'FP8 \\(ModelOpt or compressed-tensors\\)',
    layer: { weight: t('F8_E4M3', 64, 128), weight_scale: t('F32', 1), input_scale: t('F32', 1) },
  },
  'ModelOpt 4-bit AWQ': {
    tool: 'ModelOpt',
    layer: { weight: t('U8', 32, 128), weight_scale: t('F32', 64, 1), pre_quant_scale: t('F32', 128) },
  },
  'ModelOpt int8': { tool: 'ModelOpt', layer: { weight: t('I8', 64, 128), weight_scale: t('F32', 64) } },
  'bitsandbytes NF4': {
    tool: 'bitsandbytes 4-bit',
    layer: {
      ...{ weight: t('U8', 4096, 1), 'weight.absmax': t('F32', 128), 'weight.quant_map': t('F32', 16) },
      'weight.quant_state.bitsandbytes__nf4': t('U8', 92),
    },
  },
  'bitsandbytes FP4, scales quantized too, stored as BF16': {
    tool: 'bitsandbytes 4-bit',
    layer: {
      ...{ weight: t('BF16', 2048, 1), 'weight.absmax': t('U8', 128), 'weight.quant_map': t('F32', 16) },
      ...{ 'weight.nested_absmax': t('F32', 1), 'weight.nested_quant_map': t('F32', 256) },
      'weight.quant_state.bitsandbytes__fp4': t('U8', 170),
    },
  },
  'bitsandbytes 8-bit': {
    tool: 'bitsandbytes 8-bit',
    layer: { weight: t('I8', 64, 128), SCB: t('F32', 64), weight_format: t('U8') },
  },
  'MLX affine': { tool: 'MLX', layer: { weight: t('U32', 64, 16), scales: t('F16', 64, 2), biases: t('F16', 64, 2) } },
  'MLX mxfp4': { tool: 'MLX', layer: { weight: t('U32', 64, 16), scales: t('U8', 64, 4) } },
  torchao: {
    tool: 'torchao',
    layer: {
      ...{ _weight_qdata: t('I8', 64, 128), _weight_scale: t('F32', 64, 2) },
      _weight_zero_point: t('F32', 64, 2),
    },
  },
  'quanto int8': {
    tool: 'quanto',
    layer: {
      ...{ 'weight._data': t('I8', 64, 128), 'weight._scale': t('F32', 64, 1) },
      ...{ input_scale: t('F32'), output_scale: t('F32') },
    },
  },
  'quanto int4': {
    tool: 'quanto',
    layer: {
      ...{ 'weight._data._data': t('U8', 64, 64), 'weight._scale': t('F32', 64, 1), 'weight._shift': t('F32', 64, 1) },
      ...{ input_scale: t('F32'), output_scale: t('F32') },
    },
  },
  'fine-grained FP8': {
    tool: 'fine-grained FP8',
    layer: { weight: t('F8_E4M3', 64, 128), weight_scale_inv: t('F32', 1, 1) },
  },
  'fine-grained FP8, experts': {
    tool: 'fine-grained FP8',
    layer: { gate_up_proj: t('F8_E4M3', 2, 64, 128), gate_up_proj_scale_inv: t('F32', 2, 1, 1) },
  },
  'FBGEMM, experts': {
    tool: 'FP8 \\(FBGEMM\\)',
    layer: { gate_up_proj: t('F8_E4M3', 2, 64, 128), gate_up_proj_scale: t('F32', 2, 1, 128) },
  },
  MXFP4: {
    tool: 'MXFP4',
    layer: { gate_up_proj_blocks: t('U8', 2, 64, 4, 16), gate_up_proj_scales: t('U8', 2, 64, 4) },
  },
  BitNet: { tool: 'BitNet', layer: { weight: t('U8', 16, 128), weight_scale: t('BF16', 1) } },
  EETQ: { tool: 'EETQ', layer: { weight: t('I8', 128, 64), weight_scales: t('F16', 64) } },
  HIGGS: {
    tool: 'HIGGS',
    layer: { weight: t('I16', 64, 8), scales: t('F16', 64), tables: t('F16', 16), tables2: t('F16', 16, 16) },
  },
  AQLM: {
    tool: 'AQLM',
    layer: { codes: t('I16', 64, 16, 1), codebooks: t('F16', 1, 256, 1, 8), scales: t('F16', 64, 1, 1, 1) },
  },
  EXL2: {
    tool: 'EXL2',
    layer: {
      ...{ q_weight: t('I32', 16, 64), q_scale: t('I32', 2, 8), q_scale_max: t('F16', 2), q_groups: t('I16', 4) },
      q_invperm: t('I32', 128),
    },
  },
  Marlin: { tool: 'Marlin', layer: { B: t('I32', 8, 128), s: t('F16', 1, 64) } },
  VPTQ: {
    tool: 'VPTQ',
    layer: { 'centroids.weight': t('F16', 1, 2048), indices: t('I32', 1, 16, 64), weight_scale: t('F16', 128) },
  },
  'QuIP#': { tool: 'QuIP#', layer: { Qidxs: t('I64', 4, 32), SU: t('F16', 128), SV: t('F16', 64), Wscale: t('F32') } },
  'EXL3 of old': { tool: 'EXL3', layer: { trellis: t('I16', 8, 4, 64), su: t('I16', 8), sv: t('I16', 4) } },
  QTIP: {
    tool: 'QTIP',
    layer: { trellis: t('I16', 32, 64), SU: t('F16', 128), SV: t('F32', 64), tlut: t('F16', 512, 2) },
  },
  SpQR: {
    tool: 'SpQR',
    layer: {
      ...{ dense_weights: t('I64', 128), row_offsets: t('I32', 65), col_vals: t('I32', 40) },
      in_perm: t('I64', 128),
    },
  },
  'FP-Quant': {
    tool: 'FP-Quant',
    layer: { qweight: t('U8', 64, 64), scales: t('U8', 64, 4), forward_hadamard_matrix: t('BF16', 32, 32) },
  },
  SVDQuant: {
    tool: 'SVDQuant',
    layer: {
      ...{ qweight: t('I8', 64, 64), wscales: t('BF16', 2, 64), smooth_factor: t('BF16', 128) },
      ...{ proj_down: t('BF16', 128, 32), proj_up: t('BF16', 64, 32) },
    },
  },
  'TensorRT-LLM': {
    tool: 'TensorRT-LLM',
    layer: { weight: t('F8_E4M3', 64, 128), weights_scaling_factor: t('F32', 1) },
  },
  'Quark MXFP4': { tool: 'MXFP4', layer: { weight: t('U8', 64, 64), weight_scale: t('U8', 64, 4) } },
  'bitsandbytes, a shard without what goes with its weights': {
    tool: 'bitsandbytes 4-bit',
    layer: { weight: t('U8', 4096, 1) },
  },
  'MLX, a shard without scales': { tool: 'packed', layer: { weight: t('U32', 64, 16) } },
  'FP6 whose scales are elsewhere': { tool: 'packed', layer: { weight: t('F6_E2M3', 64, 128) } },
  'int8 whose scales are elsewhere': { tool: 'packed', layer: { weight: t('I8', 64, 128) } },
  EXL3: { tool: 'EXL3', layer: { trellis: t('I16', 8, 4, 64), suh: t('F16', 128), svh: t('F16', 64) } },
};

const MODULE = 'model.layers.1.mlp.up_proj';
const below = (module: string, layer: Source): Source =>
  Object.fromEntries(Object.entries(layer).map(([name, tensor]) => [`${module}.${name}`, tensor]));

/** The refusal, and that nothing was written. */
async function refusal(path: string, out = freshPath()): Promise<string> {
  const error = await failure(() => quantizeModel(path, out, { force: true }));
  expect(error.code, error.message).toBe('ERR_CHECKPOINT_CONTENT');
  expect(beside(out)).toEqual([]);
  return error.message;
}

describe('what another tool has quantized', () => {
  it.each(Object.entries(EXAMPLES))('is refused by its name where one layer is so: %s', async (_, { tool, layer }) => {
    const message = await refusal(modelFolder([{ ...llama(), ...below(MODULE, layer) }]));
    expect(message).toMatch(new RegExp(`is quantized already: 1 layer holds ${tool}[^"]* weights \\("${MODULE}\\.`));
    expect(message).toMatch(/Quantize the float original instead/);
  });

  it.each(Object.entries(EXAMPLES))('and where nothing else is there: %s', async (_, { tool, layer }) => {
    const layers = { ...below('a.0', layer), ...below('a.1', layer) };
    expect(await refusal(modelFile(layers))).toMatch(new RegExp(`already: 2 layers hold ${tool}`));
    // Names of one letter are too little where nothing stands in front.
    if (tool !== 'Marlin')
      expect(await refusal(modelFile(layer))).toMatch(new RegExp(`already: 1 layer holds ${tool}`));
  });

  it('is refused where a shard of it is so, which is named', async () => {
    const gptq = below(MODULE, EXAMPLES['GPTQ, v1 and v2']!.layer);
    const folder = modelFolder([llama(), gptq]);
    const where = /\("model\.layers\.1\.mlp\.up_proj\.qweight" in model-00002-of-00002\.safetensors\)/;
    expect(await refusal(folder)).toMatch(where);
    expect((await failure(() => quantizeModel(folder, freshPath(), { dryRun: true }))).message).toMatch(where);
    expect((await failure(() => planConversion(folder))).message).toMatch(where);
  });

  it('is told of every tool', async () => {
    const both = {
      ...below('a', EXAMPLES.AWQ!.layer),
      ...below('b', EXAMPLES.AWQ!.layer),
      ...below('c', EXAMPLES.EETQ!.layer),
    };
    expect(await refusal(modelFile(both))).toMatch(
      /2 layers hold AWQ weights \("a\.qweight"\), 1 layer holds EETQ weights/,
    );
  });

  it('is known by the metadata of torchao, whatever its tensors are called', async () => {
    const metadata = (type: string) => ({
      format: 'pt',
      tensor_names: '["a.weight", "b.weight"]',
      'a.weight': `{"_type": "${type}", "_data": {}, "_tensor_data_names": ["qdata"]}`,
      'b.weight': '{"_type": "Tensor"}',
    });
    const write = (type: string) => {
      const path = freshPath('in.safetensors');
      fs.writeFileSync(path, encode({ 'a.weight': randomTensor([64, 64], 1) }, metadata(type)));
      return path;
    };
    expect(await refusal(write('Int4Tensor'))).toMatch(/1 layer holds torchao weights \("a\.weight"\)/);
    await quantizeModel(write('Tensor'), freshPath('out.safetensors'), { dryRun: true });
  });

  it('is what a message about dequantizing says', async () => {
    const folder = modelFolder([{ ...llama(), ...below(MODULE, EXAMPLES['bitsandbytes NF4']!.layer) }]);
    const error = await failure(() => dequantizeModel(folder, freshPath()));
    expect(error.code).toBe('ERR_CHECKPOINT_CONTENT');
    expect(error.message).toMatch(
      /with HQQ, .*, but it is quantized already: 1 layer holds bitsandbytes 4-bit weights/,
    );
  });

  it('of HQQ is to be dequantized first', async () => {
    const out = freshPath();
    await quantizeModel(modelFolder([llama()]), out);
    expect(await refusal(out)).toMatch(/8 layers hold HQQ codes .* or turn this one back first \(hqq dequantize/);
  });
});

describe('what looks like it', () => {
  const plan = (source: Source) => quantizeModel(modelFolder([source]), freshPath(), { dryRun: true });

  it('is taken: floats with buffers that are called so, and whole numbers', async () => {
    const buffers: Source = {
      'x.scales': t('F32', 64, 2),
      'x.biases': t('F32', 64, 2),
      'x.weight': randomTensor([64, 64], 1),
      'x.scale': t('F32', 64),
      'x.weight_scale': t('F32', 64, 1),
      'x.input_scale': t('F32'),
      'x.output_scale': t('F32'),
      'x.k_scale': t('F32'),
      'y.scales': t('F32', 4),
      'y.SCB': t('F32', 64),
      'y.weight': randomTensor([64, 64], 2),
      'y.absmax': t('F32', 64),
      'z.qweight': randomTensor([64, 64], 3),
      'z.scales': t('F32', 4),
      'z.codes': t('I64', 64),
      'ids.weight': t('I64', 4, 4),
      'ids.g_idx': t('I32', 4),
      'mask.weight': t('BOOL', 4, 4),
      'mask.scale': t('F32', 4),
      'm.residual_blocks': t('F32', 4),
      'm.residual_scales': t('F32', 4),
      'plain.weight': t('F8_E4M3', 64, 64),
      'attn.relative_position_index': t('I64', 16, 16),
      'counter.num_batches_tracked': t('I64'),
    };
    const { tensors } = await plan({ ...llama(), ...below('buffers', buffers) });
    expect(tensors).toHaveLength(8); // those of the Llama: other modules have tensors besides weight and bias
  });

  it('costs no more than a look at each tensor', () => {
    const names = Array.from(
      { length: 100_000 },
      (_, i) => `model.layers.${i}.proj.${['weight', 'scales', 'absmax', 'weight_scale'][i % 4]}`,
    );
    const entries = new Map(
      names.map((name) => [name, { name, type: storedType('F32'), shape: [4, 4], file: 'a', begin: 0, end: 64 }]),
    );
    let asked = 0;
    const counted = { values: () => entries.values(), get: (name: string) => (asked++, entries.get(name)) };
    expect(foreignLayers(counted as unknown as typeof entries, new Map())).toEqual([]);
    expect(asked).toBeLessThan(10 * names.length);
  });
});
