// The operations on whole models as the package exports them, but for `quantizeModel` (lib/queue/entry.ts). Their code, half of the package's, is read at the first call:
// who only computes never waits for it, and an import stays short.
import type { FilePath } from '../files/path.js';
import { refuseSurplus } from '../messages/surplus.js';
import type { CompareOptions } from './compare.js';
import type { DequantizeModelOptions, DequantizeReport } from './dequantize.js';
import type { Model } from './model.js';
import type { CompareReport } from './report.js';
import type { LoadedTensors, SaveOptions, Tensors } from './tensors.js';

/**
 * Turns a quantized model back into an ordinary one, which loads wherever the original loaded: every quantized layer becomes
 * a `weight`, rounded once to `dtype` (as every floating-point tensor is where one is given), and config.json loses its
 * `quantization_config`.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`; `ERR_CHECKPOINT_CONTENT` for a model that is not
 *   quantized; the signal's reason when it is aborted.
 */
export async function dequantizeModel(
  input: FilePath,
  output: FilePath,
  options?: DequantizeModelOptions,
): Promise<DequantizeReport> {
  refuseSurplus(arguments.length, 3, 'dequantizeModel(input, output, options)');
  return (await import('./dequantize.js')).dequantizeModel(input, output, options);
}

/**
 * Measures how far a quantized (or dequantized) model is from the original: every quantized weight, and every matrix that
 * differs, number by number; all other tensors as equal, as equal but for rounding to the type that the second stores them
 * in, or as different. A tensor of which rounding made a number infinite is different.
 *
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`; `ERR_CHECKPOINT_CONTENT` for models that do not
 *   belong together; the signal's reason when it is aborted.
 */
export async function compareModels(
  original: FilePath,
  quantized: FilePath,
  options?: CompareOptions,
): Promise<CompareReport> {
  refuseSurplus(arguments.length, 3, 'compareModels(original, quantized, options)');
  return (await import('./compare.js')).compareModels(original, quantized, options);
}

/**
 * Opens a model to read: a safetensors file or a Hugging Face folder, quantized or not, or `org/name` for one that is in this
 * machine's Hugging Face cache. `close` it when done.
 *
 * @example
 * const model = await openModel('Llama-3.2-1B-hqq4');
 * const weight = await model.load('model.layers.0.self_attn.q_proj.weight');
 * await model.close();
 * @throws {HqqError} `ERR_IO`, `ERR_CHECKPOINT_FORMAT`, `ERR_CHECKPOINT_CONTENT`
 */
export async function openModel(path: FilePath): Promise<Model> {
  refuseSurplus(arguments.length, 1, 'openModel(path)');
  return (await import('./model.js')).openModel(path);
}

/**
 * Writes matrices to a safetensors file: quantized ones as layers of HQQ, with scale and zero in float32, which `openModel` reads,
 * others as they are. The file appears whole or not at all; the arrays must not be written to until the promise settles.
 *
 * `loadTensors` gives back the same numbers under the same names; `stats` and `adapted` are not kept. A dense `[1, outFeatures]`
 * called `x.bias` beside a quantized `x.weight` is that layer's bias, which `openModel(path).linear('x')` adds. No matrices at all are
 * no error: the file holds none, and loads as `{}`.
 *
 * @example
 * await saveTensors('layers.safetensors', { 'up.weight': await quantize(weight), 'up.bias': { data, shape: [1, 4096] } });
 * @throws {HqqError} `ERR_INVALID_ARGUMENT` (what is neither, names that clash), `ERR_INVALID_OPTION`, `ERR_GROUP_SIZE`,
 *   `ERR_CHECKPOINT_CONTENT`, `ERR_IO`
 */
export async function saveTensors(path: FilePath, tensors: Tensors, options?: SaveOptions): Promise<void> {
  refuseSurplus(arguments.length, 3, 'saveTensors(path, tensors, options)');
  return (await import('./tensors.js')).saveTensors(path, tensors, options);
}

/**
 * Reads all matrices of a safetensors file, or of a model's folder: quantized ones as `quantize` gives them (their `stats` are NaN), others in the type that
 * they have, lists of n numbers as 1 x n. What else a model may hold is an error; `openModel` reads that.
 *
 * @example const { 'up.weight': up } = await loadTensors('layers.safetensors');
 * @throws {HqqError} `ERR_INVALID_OPTION`, `ERR_IO`, `ERR_CHECKPOINT_FORMAT`, `ERR_OUT_OF_MEMORY`; `ERR_CHECKPOINT_CONTENT` for what
 *   is no matrix of float32, float16 or bfloat16.
 */
export async function loadTensors(path: FilePath): Promise<LoadedTensors> {
  refuseSurplus(arguments.length, 1, 'loadTensors(path)');
  return (await import('./tensors.js')).loadTensors(path);
}
