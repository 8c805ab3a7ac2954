import { kindsOf } from '../containers/names.js';
import type { ZeroPoint } from '../solvers/solver.js';
import { isExpert } from './rows/form.js';
import { declaredOf } from './rows/stored.js';
import type { LayerStorage } from './scheme.js';

// Which engines load which layers: what was seen running, or read in their sources, of the releases that docs/engines.md names.

/** What engines ask of a layer. */
export interface EngineLayer {
  readonly name: string;
  readonly scheme: string;
  readonly shape: readonly [outFeatures: number, inFeatures: number];
  readonly nbits: number;
  readonly groupSize: number;
  readonly zeroPoint: ZeroPoint;
  /** As `LayerStorage` has it, of a layer that was found. */
  readonly packing?: string;
}

interface Engine {
  /** As `--for` has it. */
  readonly name: string;
  /** As people call it. */
  readonly title: string;
  /** It computes layers as one that models have apart: parts must be stored alike. */
  readonly fuses?: true;
  /** The formats that it loads: why it does not load a layer of one; undefined where it does. */
  readonly formats: Readonly<Record<string, (layer: EngineLayer) => string | undefined>>;
  /** Formats in which experts that stay as they are do not load beside layers that are quantized. Absent: none. */
  readonly wantsExperts?: readonly string[];
  /** Types of models whose experts it holds as one tensor, and does not read one by one. Absent: none. */
  readonly stacksOnly?: readonly string[];
  /** Classes of models that did not load when `npm run sweep` tried them: docs/architectures.md has its words. Absent: none. */
  readonly fails?: readonly string[];
}

const noExperts = ({ name }: EngineLayer) =>
  isExpert(name) ? 'experts become random numbers, without a message' : undefined;
/** vLLM and SGLang read AWQ in no other order. */
const gemm = ({ packing = 'awq-gemm' }: EngineLayer) =>
  packing === 'awq-gemm' ? undefined : 'it takes AWQ in the order of gemm alone';
const symmetricExperts = ({ name, zeroPoint }: EngineLayer) =>
  isExpert(name) && zeroPoint !== 'symmetric' ? 'experts need symmetric zeros (--zero-point symmetric)' : undefined;
const symmetricGptq = ({ nbits, zeroPoint }: EngineLayer) => {
  if (nbits !== 4 && nbits !== 8) return `GPTQ needs 4 or 8 bits, not ${nbits} (--nbits)`;
  return zeroPoint === 'symmetric'
    ? undefined
    : 'GPTQ needs symmetric zeros (--zero-point symmetric, or --to compressed-tensors)';
};
/** Kernels of SGLang neither check nor pad. */
const marlin = ({ shape: [outs, ins], groupSize }: EngineLayer) => {
  if (outs % 64 !== 0 || ins % 128 !== 0)
    return `its kernel takes rows in multiples of 64 and columns of 128, not ${outs} x ${ins} (--exclude it)`;
  return [32, 64, 128, ins].includes(groupSize)
    ? undefined
    : `its kernel takes groups of 32, 64, 128 or whole rows, not ${groupSize} (--group-size)`;
};

/** Every engine, once. */
const ENGINES: readonly Engine[] = [
  {
    name: 'transformers',
    title: 'transformers 5',
    wantsExperts: ['compressed-tensors'],
    stacksOnly: ['gpt_oss', 'qwen3_vl_moe', 'qwen3_vl_moe_text'],
    fails: [
      'BlipTextLMHeadModel',
      'DeformableDetrForObjectDetection',
      'Dinov2Model',
      'GraniteSpeechForConditionalGeneration',
      'Mask2FormerForUniversalSegmentation',
      'MusicgenMelodyForConditionalGeneration',
      'OneFormerForUniversalSegmentation',
      'SwinModel',
    ],
    formats: {
      'compressed-tensors': symmetricExperts,
      // It hands AWQ in the order of gemv to kernels of GPTQModel.
      awq: (layer) => (gemm(layer) ? 'AWQ in another order than that of gemm was not tried' : noExperts(layer)),
      gptq: noExperts,
      torchao: noExperts,
    },
  },
  {
    name: 'vllm',
    title: 'vLLM',
    fuses: true,
    formats: {
      'compressed-tensors': (layer) => (layer.nbits === 1 ? 'it takes 2 to 8 bits, not 1' : symmetricExperts(layer)),
      awq: gemm,
      gptq: symmetricGptq,
      torchao: ({ zeroPoint }) =>
        zeroPoint === 'float'
          ? 'it cuts floating-point zeros off, without a message (--zero-point integer)'
          : undefined,
    },
  },
  {
    name: 'sglang',
    title: 'SGLang',
    fuses: true,
    formats: {
      'compressed-tensors': (layer) => {
        if (layer.nbits !== 4 && layer.nbits !== 8) return `it takes 4 or 8 bits, not ${layer.nbits} (--nbits)`;
        if (layer.nbits === 8 && layer.zeroPoint !== 'symmetric')
          return '8 bits need symmetric zeros (--zero-point symmetric)';
        return symmetricExperts(layer) ?? marlin(layer);
      },
      awq: (layer) => gemm(layer) ?? marlin(layer),
      gptq: (layer) => symmetricGptq(layer) ?? marlin(layer),
    },
  },
  { name: 'llama.cpp', title: 'llama.cpp', formats: { gguf: () => undefined } },
];

/** Of models of which an engine that takes a format is known not to load a class: that it would not. */
export function failureNotes(scheme: string, kinds: readonly unknown[]): readonly string[] {
  return ENGINES.flatMap(({ title, formats, fails = [] }) => {
    const failed = scheme in formats ? fails.find((one) => kinds.includes(one)) : undefined;
    return failed === undefined ? [] : [`${title} did not load a quantized ${failed} when that was tried.`];
  });
}

/** Of models whose experts an engine holds as one tensor: that it would load none that are stored one by one. */
export function stackNotes(layers: readonly string[], kinds: readonly unknown[]): readonly string[] {
  if (!layers.some(isExpert)) return [];
  return ENGINES.flatMap(({ title, stacksOnly = [] }) => {
    const type = stacksOnly.find((one) => kinds.includes(one));
    if (type === undefined) return [];
    return [
      `${title} holds the experts of ${type} as one tensor, and would fill them with random numbers: for it, leave them (--exclude "*.experts.*").`,
    ];
  });
}

/** Layers that engines compute as one. */
const FUSED = [
  ['q_proj', 'k_proj', 'v_proj'],
  ['gate_proj', 'up_proj'],
];

/**
 * Of each set of layers that engines compute as one: its parts, and the first layer of which another part is stored differently.
 *
 * @param storageOf A text that differs where layers are stored differently.
 */
export function splitSets<Layer extends { readonly name: string }>(
  layers: readonly Layer[],
  storageOf: (layer: Layer) => string,
): readonly { readonly parts: readonly string[]; readonly layer: Layer }[] {
  const known = new Map(layers.map((layer) => [layer.name, storageOf(layer)]));
  return FUSED.flatMap((parts) => {
    for (const layer of layers) {
      const part = parts.find((end) => layer.name.endsWith(`.${end}`));
      if (part === undefined) continue;
      const stem = layer.name.slice(0, -part.length);
      const own = storageOf(layer);
      if (parts.some((end) => (known.get(stem + end) ?? own) !== own)) return [{ parts, layer }];
    }
    return [];
  });
}

/** Names of the engines, as `--for` has them. */
export const ENGINE_NAMES: readonly string[] = ENGINES.map(({ name }) => name);

/** The first of the formats that an engine loads. */
export const formatFor = (engine: string): string => Object.keys(engineNamed(engine).formats)[0]!;

function engineNamed(name: string): Engine {
  const engine = ENGINES.find((known) => known.name === name);
  if (engine === undefined) throw new RangeError(`Expected the name of an engine, got ${name}.`);
  return engine;
}

/** Why an engine does not load a model, of the first layer that it does not. */
export interface NotLoaded {
  readonly title: string;
  readonly layer: { readonly name: string };
  readonly reason: string;
}

/**
 * Why an engine does not load layers; undefined where it does.
 *
 * @param stays Names of layers that are not quantized.
 * @param kinds What `kindsOf` finds in its configuration.
 */
export function notLoaded(
  engine: string,
  layers: readonly EngineLayer[],
  stays: readonly string[] = [],
  kinds: readonly unknown[] = [],
): NotLoaded | undefined {
  const { title, formats, fuses, wantsExperts = [], stacksOnly = [], fails = [] } = engineNamed(engine);
  const stacked = stacksOnly.find((type) => kinds.includes(type));
  const failed = fails.find((one) => kinds.includes(one));
  for (const layer of layers) {
    const rule = formats[layer.scheme];
    const apart = stacked !== undefined && isExpert(layer.name);
    const reason = apart
      ? `it holds the experts of ${stacked} as one tensor, and reads none one by one (--exclude "*.experts.*")`
      : rule === undefined
        ? `it takes ${Object.keys(formats).join(', ')} (--to), not ${layer.scheme}`
        : rule(layer);
    if (reason !== undefined) return { title, layer, reason };
    if (failed !== undefined) return { title, layer, reason: `a quantized ${failed} did not load when that was tried` };
  }
  const dense = stays.find(isExpert);
  if (dense !== undefined && layers.some(({ scheme }) => wantsExperts.includes(scheme))) {
    return {
      title,
      layer: { name: dense },
      reason:
        'experts must all be quantized where other layers are (quantize them, too; or --to torchao, which leaves all of them)',
    };
  }
  if (!fuses) return undefined;
  const others = stays.map((name) => ({ name }));
  const storageOf = (layer: EngineLayer | { readonly name: string }) =>
    'scheme' in layer ? [layer.scheme, layer.nbits, layer.groupSize, layer.zeroPoint].join() : '';
  for (const { parts, layer } of splitSets<EngineLayer | { readonly name: string }>(
    [...layers, ...others],
    storageOf,
  )) {
    const reason = `it computes ${parts.join(', ')} as one layer, whose parts must all be stored alike (--override, --exclude)`;
    if ('scheme' in layer) return { title, layer, reason };
  }
  return undefined;
}

/** A layer that was found, for engines. */
export function engineLayer({
  name,
  scheme,
  shape,
  storage: { nbits, groupSize, zeroPoint = 'float', packing },
}: Pick<EngineLayer, 'name' | 'scheme' | 'shape'> & { readonly storage: LayerStorage }): EngineLayer {
  return { name, scheme, shape, nbits, groupSize, zeroPoint, packing };
}

/** The engines that load a model of such layers, as people call them. The rest as `notLoaded` has it. */
export function enginesOf(
  layers: readonly EngineLayer[],
  stays: readonly string[] = [],
  config?: Readonly<Record<string, unknown>>,
): readonly string[] {
  if (layers.some(({ scheme }) => scheme === 'onnx')) return ['onnxruntime', 'transformers.js'];
  const loading = ENGINES.filter(({ name }) => notLoaded(name, layers, stays, kindsOf(config)) === undefined);
  return loading.filter(({ name }) => name !== 'transformers' || unpacks(layers, config)).map(({ title }) => title);
}

/** Zeros of compressed-tensors' layers: transformers 5 refuses them where config.json does not tell it to unpack all, by both its keys. */
function unpacks(layers: readonly EngineLayer[], config: Readonly<Record<string, unknown>> | undefined): boolean {
  const said = declaredOf(config);
  if (said.dequantize === true && said.run_compressed === false) return true;
  return !layers.some(({ scheme, zeroPoint }) => scheme === 'compressed-tensors' && zeroPoint !== 'symmetric');
}
