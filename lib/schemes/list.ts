import type { TensorSource } from '../containers/container.js';
import { HqqError } from '../messages/errors.js';
import { plain } from '../messages/text.js';
import { awq } from './awq/scheme.js';
import { compressedTensors } from './compressed-tensors/scheme.js';
import { ggml } from './ggml/scheme.js';
import { gptq } from './gptq/scheme.js';
import { hqq } from './hqq/scheme.js';
import { onnxNodes } from './onnx/scheme.js';
import type { Scheme } from './scheme.js';
import { torchao } from './torchao/scheme.js';

/** Every scheme, once. The first that a container can hold is what models in it are quantized with. */
export const SCHEMES: Scheme[] = [hqq, compressedTensors, awq, gptq, torchao, ggml, onnxNodes];

/** The scheme of this name. */
export function schemeNamed(name: string): Scheme {
  const scheme = SCHEMES.find((known) => known.name === name);
  if (scheme === undefined) throw new RangeError(`Expected the name of a scheme, got ${name}.`);
  return scheme;
}

/**
 * The scheme of the layers of a model that is made from `source`.
 *
 * @param name The one that was asked for; undefined for what its container has first.
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` where the container does not hold it.
 */
export function schemeFor(source: Pick<TensorSource, 'container' | 'path'>, name: string | undefined): Scheme {
  const able = SCHEMES.filter(({ containers }) => containers.includes(source.container));
  if (name === undefined && able.length === 0)
    throw new RangeError(`Expected a scheme for ${source.container}, got none.`);
  const scheme = name === undefined ? able[0] : able.find((one) => one.name === name);
  if (scheme !== undefined) return scheme;
  const names = able.map((one) => one.name).join(', ');
  const message = `Expected a format (to, --to) that ${plain(source.path)} can become, which is ${source.container}: ${names}`;
  // A folder becomes such a file by its name.
  const way =
    name === ggml.name && source.container === 'safetensors' ? '. For it, let the output (--out) end in .gguf' : '';
  throw new HqqError('ERR_CHECKPOINT_CONTENT', `${message}; got ${name}${way}.`);
}
