import { plain, quote } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import type { TensorEntry } from '../container.js';
import { numbersOf, type StoredType } from '../stored-types.js';

// How other tools' quantized layers are known by their tensors, whatever config.json says: by names, types and, where two tools
// share these, shapes. A single name is never enough: float models have buffers called `scales`, and matrices of integers.

/** Files in which tools say how they have quantized a model: ModelOpt, AutoGPTQ, AutoAWQ, quanto. Loaders read them, whatever is beside. */
export const FOREIGN_CONFIG = /^(hf_quant_config|quantize_config|quant_config|quanto_qmap)\.json$/;

type Kind = (type: StoredType) => boolean;

const any: Kind = () => true;
const float: Kind = (type) => numbersOf(type) !== undefined;
const whole: Kind = ({ name }) => /^[IU]\d+$/.test(name);
const fp8: Kind = ({ name }) => name.startsWith('F8_');
/** What weights are packed in: whole numbers, or types of less than 16 bits. */
const packed: Kind = (type) => !float(type) && type.name !== 'BOOL' && type.name !== 'C64';
const one =
  (type: string): Kind =>
  ({ name }) =>
    name === type;

interface Mark {
  /** The tool, as in "GPTQ weights". */
  readonly tool: string;
  /** What the name of a tensor ends in that every such layer has one of, and its type. */
  readonly end: string;
  readonly kind: Kind;
  /** Ends of the names of others of the layer, in place of `end`, and their types. All must be there. */
  readonly beside: Readonly<Record<string, Kind>>;
  /** What shapes must say besides. `others`: those of `beside`, in its order. */
  readonly shaped?: (tensor: TensorEntry, others: readonly TensorEntry[]) => boolean;
}

const mark = (
  tool: string,
  end: string,
  kind: Kind,
  beside: Readonly<Record<string, Kind>>,
  shaped?: Mark['shaped'],
): Mark => ({ tool, end, kind, beside, ...(shaped === undefined ? {} : { shaped }) });

const rank = (tensor: TensorEntry, count: number) => tensor.shape.length === count;

/** Of several that fit a tensor the first one counts. */
const MARKS: readonly Mark[] = [
  // AutoGPTQ and gptqmodel (nn_modules/qlinear): qweight I32 [in * bits / 32, out], qzeros I32, scales [groups, out], g_idx I32 [in].
  mark('GPTQ', '.qweight', whole, { '.g_idx': whole }),
  // auto-round writes the same without g_idx. AWQ has `out / 8` columns of qweight for `out` of scales.
  mark(
    'GPTQ',
    '.qweight',
    one('I32'),
    { '.scales': float },
    (tensor, [scales]) => tensor.shape[1] === scales!.shape[1],
  ),
  // AutoAWQ (modules/linear/gemm.py, gemv.py, gemv_fast.py): qweight I32 [in, out / 8], or I16 of gemv_fast, which is not read, qzeros,
  // scales F16.
  mark('AWQ gemv_fast', '.qweight', one('I16'), { '.qzeros': float, '.scales': float }),
  mark('AWQ', '.qweight', whole, { '.qzeros': any, '.scales': float }),
  // llm-awq (awq/quantize/qmodule.py): qweight I16, scales, scaled_zeros.
  mark('AWQ of llm-awq', '.qweight', whole, { '.scaled_zeros': float }),
  // FP-Quant (transformers, integrations/fp_quant.py). SVDQuant (nunchaku, models/linear.py): qweight I8, wscales, proj_down, proj_up.
  mark('FP-Quant', '.qweight', packed, { '.forward_hadamard_matrix': float }),
  mark('SVDQuant', '.qweight', packed, { '.wscales': any }),
  mark('packed (qweight)', '.qweight', packed, { '.scales': any }),
  // compressed-tensors (compressors/pack_quantized, nvfp4, mxfp4, mxfp6): weight_packed I32, which is read, or U8, weight_scale; marlin-24 has
  // scale_packed.
  mark('compressed-tensors nvfp4 or mxfp4', '.weight_packed', one('U8'), { '.weight_scale': any }),
  mark('compressed-tensors', '.weight_packed', packed, { '.weight_scale': any }),
  mark('compressed-tensors marlin-24', '.weight_packed', packed, { '.scale_packed': any }),
  mark('compressed-tensors sparse-bitmask', '.compressed', any, { '.bitmask': packed }),
  // NVIDIA's ModelOpt (torch/export/quant_utils.py): NVFP4 is weight U8 [out, in / 2], weight_scale F8_E4M3, weight_scale_2 F32, input_scale
  // F32; stacks of experts have gate_up_proj_weight_scale_2. FP8: weight F8_E4M3 with a weight_scale and an input_scale that are scalars, or
  // a weight_scale for each output; int8 the latter; 4-bit AWQ: U8 with pre_quant_scale.
  mark('ModelOpt NVFP4', 'weight_scale', any, { weight_scale_2: float }),
  mark('ModelOpt', '.weight_scale', any, { '.weight': packed, '.pre_quant_scale': float }),
  mark('ModelOpt FP8', '.weight_scale', float, { '.weight': fp8 }, (scale) => rank(scale, 0)),
  mark('ModelOpt', '.weight_scale', float, { '.weight': packed }, (scale, [weight]) => {
    return rank(scale, 1) && scale.shape[0] !== 1 && scale.shape[0] === weight!.shape[0];
  }),
  // BitNet in transformers (integrations/bitnet.py): weight U8 [out / 4, in], one weight_scale. Other U8 is ModelOpt's.
  mark('BitNet', '.weight_scale', float, { '.weight': one('U8') }, (scale) => !rank(scale, 2)),
  // MXFP4 of AMD's Quark and of ModelOpt: weight U8 [out, in / 2], weight_scale U8 [out, in / 32].
  mark('MXFP4 (Quark or ModelOpt)', '.weight_scale', one('U8'), { '.weight': one('U8') }),
  mark('ModelOpt', '.weight_scale', any, { '.weight': one('U8') }),
  // TensorRT-LLM's own checkpoints.
  mark('TensorRT-LLM', '.weights_scaling_factor', any, { '.weight': packed }),
  // compressed-tensors' int-quantized and float-quantized, weight I8 or F8_E4M3 with weight_scale [out, 1] or [1]; FBGEMM's in transformers
  // (integrations/fbgemm_fp8.py) is the former of these. What is quantized but not packed has a zero point beside a weight of floats.
  mark('compressed-tensors int-quantized', '.weight_scale', any, { '.weight': whole }),
  mark('FP8 (ModelOpt or compressed-tensors)', '.weight_scale', float, { '.weight': fp8 }, (scale) => rank(scale, 1)),
  mark('FP8 (compressed-tensors or FBGEMM)', '.weight_scale', any, { '.weight': packed }),
  mark('compressed-tensors naive-quantized', '.weight_scale', float, { '.weight_zero_point': whole }),
  // bitsandbytes, 4 bits (functional.py, QuantState.as_dict(packed=True)): weight, weight.absmax, weight.quant_map,
  // weight.quant_state.bitsandbytes__nf4. The weight may be stored as any type (bnb_4bit_quant_storage).
  mark('bitsandbytes 4-bit', '.absmax', any, { '': any, '.quant_map': float }),
  mark('bitsandbytes 4-bit', '.quant_state.bitsandbytes__nf4', whole, {}),
  mark('bitsandbytes 4-bit', '.quant_state.bitsandbytes__fp4', whole, {}),
  // And 8 bits (nn/modules.py, Linear8bitLt): weight I8, SCB F32 [out], weight_format U8.
  mark('bitsandbytes 8-bit', '.SCB', float, { '.weight': one('I8') }),
  // MLX (nn/layers/quantized.py): weight U32, scales, and biases where the mode is affine; scales of mxfp4, nvfp4 and mxfp8 are U8.
  mark('MLX', '.scales', any, { '.weight': one('U32') }),
  // torchao (prototype/safetensors): M.weight becomes M._weight_qdata, M._weight_scale and more. Also by its metadata, below.
  mark('torchao', '._weight_qdata', any, {}),
  // quanto (tensor/qtensor.py, save_to_state_dict): weight._data and weight._scale; below 8 bits weight._data._data and weight._shift.
  mark('quanto', '._scale', float, { '._data': packed }),
  mark('quanto', '._scale', float, { '._data._data': packed }),
  // DeepSeek's FP8, of transformers' too (integrations/finegrained_fp8.py): weight_scale_inv for blocks of 128 x 128, of stacks of experts
  // gate_up_proj_scale_inv; DeepSeek's own files call it scale. FBGEMM's experts have gate_up_proj_scale.
  mark('fine-grained FP8', '_scale_inv', any, { '': fp8 }),
  mark('fine-grained FP8', '.scale', any, { '.weight': fp8 }),
  mark('MX', '.scale', one('F8_E8M0'), { '.weight': packed }),
  mark('FP8 (FBGEMM)', '_scale', any, { '': fp8 }),
  // ComfyUI (comfy/ops.py, scaled_fp8_ops).
  mark('scaled FP8', '.scale_weight', float, { '.weight': fp8 }),
  // gpt-oss (transformers, integrations/mxfp4.py): gate_up_proj_blocks U8 and gate_up_proj_scales U8.
  mark('MXFP4', '_blocks', one('U8'), { _scales: one('U8') }),
  // EETQ: weight I8, weight_scales. HIGGS: weight, scales, tables2. AQLM: codes, codebooks, scales (all in transformers/integrations).
  mark('EETQ', '.weight_scales', float, { '.weight': one('I8') }),
  mark('HIGGS', '.tables2', float, { '.scales': float, '.weight': packed }),
  mark('AQLM', '.codebooks', float, { '.codes': whole }),
  // ExLlamaV2 (ext.py, make_q_matrix) and V3 (modules/quant/exl3.py).
  mark('EXL2', '.q_weight', whole, { '.q_scale': whole }),
  mark('EXL3', '.trellis', whole, { '.svh': float }),
  mark('EXL3', '.trellis', whole, { '.sv': any }),
  // QTIP (lib/linear/quantized_linear.py), and SpQR (inference_lib/src/spqr_quant/inference.py).
  mark('QTIP', '.trellis', whole, { '.SV': any }),
  mark('SpQR', '.dense_weights', whole, { '.row_offsets': whole, '.col_vals': whole }),
  // Marlin (marlin/__init__.py, Layer): B I32, s F16. VPTQ (layers/vqlinear.py). QuIP# (lib/linear/quantized_linear.py).
  mark('Marlin', '.B', one('I32'), { '.s': float }),
  mark('VPTQ', '.centroids.weight', float, { '.indices': whole }),
  mark('QuIP#', '.Qidxs', whole, { '.SV': float }),
];

/** For models that have none of these: bytes where layers have floats, as in a shard without what goes with them. bitsandbytes' have one column. */
const LAST_MARKS: readonly Mark[] = [
  mark('bitsandbytes 4-bit', '.weight', one('U8'), {}, (weight) => rank(weight, 2) && weight.shape[1] === 1),
  mark(
    'packed',
    '.weight',
    ({ name }) => /^([IU]8|U32|F4|F6_.*)$/.test(name),
    {},
    (weight) => rank(weight, 2),
  ),
];

/** Letters at the end of a name by which marks are looked up: each tensor is held against few of them. */
const LETTERS = 2;

const MARKS_BY_END: ReadonlyMap<string, readonly Mark[]> = new Map(
  MARKS.map(({ end }) => {
    const letters = end.slice(-LETTERS);
    return [letters, MARKS.filter((other) => other.end.endsWith(letters))];
  }),
);

type Entries = ReadonlyMap<string, TensorEntry>;

/** Layers that a tool has quantized, and a tensor of one of them. */
export interface ForeignLayers {
  readonly tool: string;
  readonly layers: number;
  /** The name of a tensor that shows it. */
  readonly example: string;
  /** The file that has it. */
  readonly file: string;
}

/**
 * Layers that other tools have quantized, by tool, the most frequent first. Looks at each tensor once.
 *
 * @param metadata `__metadata__` of each file, by its name
 */
export function foreignLayers(
  entries: Entries,
  metadata: ReadonlyMap<string, ReadonlyMap<string, string>>,
): readonly ForeignLayers[] {
  const found = new Map<string, { example: string; file: string; layers: Set<string> }>();
  const add = (tool: string, layer: string, example: string, file: string) => {
    const known = found.get(tool);
    if (known) known.layers.add(layer);
    else found.set(tool, { example, file, layers: new Set([layer]) });
  };
  const look = (entry: TensorEntry, marks: readonly Mark[]) => {
    for (const row of marks) {
      const layer = layerOf(row, entry, entries);
      if (layer === undefined) continue;
      add(row.tool, layer, entry.name, entry.file);
      return;
    }
  };
  const strange: TensorEntry[] = [];
  for (const entry of entries.values()) {
    look(entry, MARKS_BY_END.get(entry.name.slice(-LETTERS)) ?? []);
    if (!float(entry.type)) strange.push(entry);
  }
  if (found.size === 0) for (const entry of strange) look(entry, LAST_MARKS);
  if (!found.has('torchao')) {
    for (const [file, pairs] of metadata) for (const name of torchaoTensors(pairs)) add('torchao', name, name, file);
  }
  return [...found]
    .map(([tool, { example, file, layers }]) => ({ tool, layers: layers.size, example, file }))
    .sort((a, b) => b.layers - a.layers);
}

const isBare = (name: string, end: string) => name.length === end.length - 1 && end.endsWith(name);

/** What the names of a layer's tensors begin with, if a tensor is one of a layer that a tool has quantized. */
function layerOf({ end, kind, beside, shaped }: Mark, tensor: TensorEntry, entries: Entries): string | undefined {
  const { name, type } = tensor;
  // The tensors of a layer that was saved by itself have no module in front.
  const stem = name.endsWith(end) ? name.slice(0, -end.length) : isBare(name, end) ? '' : undefined;
  if (stem === undefined || !kind(type)) return undefined;
  const others: TensorEntry[] = [];
  for (const [other, otherKind] of Object.entries(beside)) {
    const found = entries.get(stem === '' && other.startsWith('.') ? other.slice(1) : stem + other);
    if (found === undefined || !otherKind(found.type)) return undefined;
    others.push(found);
  }
  return shaped === undefined || shaped(tensor, others) ? stem : undefined;
}

/**
 * Weights that torchao describes in the metadata of a file: for each tensor of the model a JSON like
 * `{"_type": "IntxUnpackedToInt8Tensor", "_data": ...}`, or `{"_type": "Tensor"}` for one that is none of its own.
 */
function torchaoTensors(pairs: ReadonlyMap<string, string>): readonly string[] {
  if (!pairs.has('tensor_names')) return [];
  return [...pairs].flatMap(([name, text]) => {
    const type = /^\{\s{0,8}"_type"\s{0,8}:\s{0,8}"(\w{1,100})"/.exec(text)?.[1];
    return type === undefined || type === 'Tensor' ? [] : [name];
  });
}

/** "14 layers hold GPTQ weights ("model.layers.0.self_attn.q_proj.qweight" in model-00001-of-00002.safetensors)". */
export function tellForeign(found: readonly ForeignLayers[], files: number): string {
  return found
    .slice(0, 3)
    .map(({ tool, layers, example, file }) => {
      const where = files > 1 ? ` in ${plain(file)}` : '';
      return `${plural(layers, 'layer')} ${layers === 1 ? 'holds' : 'hold'} ${tool} weights (${quote(example)}${where})`;
    })
    .join(', ');
}
