// Compiled by test:install under each way of resolving modules, as ESM and as CommonJS.
import {
  backend,
  HqqError,
  openModel,
  type QuantConfig,
  QuantizedLinear,
  type QuantizedTensor,
  quantize,
  quantizeModel,
} from 'hqq';
import { dequantizeSync, quantizeSync, type Weight } from 'hqq/js';
import {
  type BlockSource,
  type LanguageModel,
  type LinearInput,
  loadLanguageModel,
  type OpenBlock,
  openBlockSource,
} from 'hqq/runtime';

const config: QuantConfig = { nbits: 4, groupSize: 64 };
const weight: Weight = { data: new Float32Array(64), dtype: 'float32', shape: [1, 64] };
const isa: 'avx512' | 'avx2' | 'neon' | 'scalar' | 'js' = backend().isa;

export async function main(signal: AbortSignal): Promise<Float32Array> {
  const q: QuantizedTensor = await quantize(weight, config, { signal });
  const back: Float32Array = dequantizeSync(quantizeSync(weight, { nbits: 1.58 }));
  const model: LanguageModel = await loadLanguageModel('folder');
  for await (const token of model.generate(isa)) if (token.text === '') break;
  const { totals } = await quantizeModel('in', 'out', { ...config, signal, onProgress: ({ tensor }) => tensor.length });
  const opened = await openModel('out');
  const layer = new QuantizedLinear(q, { activations: 'int8' });
  if (back.length > totals.seconds) throw new HqqError('ERR_IO', opened.path);
  return layer.forward(back);
}

export async function inputs(tap: (input: LinearInput) => void): Promise<Float32Array> {
  const source: BlockSource = await openBlockSource('folder', { activations: 'int8' });
  let texts: Float32Array[] = [await source.embed([1, 2, 3])];
  for await (const block of source.blocks()) {
    const { module } = block.linears[0]!;
    const other: OpenBlock = await block.replace({
      [module]: await quantize({ data: await block.weight(module), shape: [1, 64] }),
    });
    texts = await other.forward(texts, { tap, onProgress: ({ rowsDone }) => rowsDone.toFixed() });
  }
  const head = await source.head();
  return head.forward(texts[0]!.subarray(-source.config.hiddenSize));
}

/** For mixed.mts. */
export const bias = (layer: QuantizedLinear) => layer.bias;

// What is wrong must not pass: declarations that are not found, or are `any`, would let it.
// @ts-expect-error There are no seven bits.
export const wrongBits = quantize(weight, { nbits: 7 });
// @ts-expect-error There is no such code.
export const wrongCode = new HqqError('ERR_NONE', '');
// @ts-expect-error Files are not for hqq/js.
export type { Model } from 'hqq/js';
