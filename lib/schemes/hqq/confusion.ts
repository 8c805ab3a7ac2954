import { quote } from '../../messages/text.js';

// transformers 4.50 to 4.57 look for names within names, as text: where one is found in another that is not meant, a layer is left
// unloaded, or a tensor is, and nothing is said.

/** Characters that the start of a name is looked up by, before the whole of it is. */
const START = 8;

/**
 * Layers that must stay as they are, and why, since a name would be taken for another.
 *
 * @param layers Those that are to be quantized.
 * @param stays Linear layers that are not: any part of a name that is theirs is skipped.
 * @param tensors Names of what is not part of a layer to be quantized: of these, one that has a layer's name in it is lost.
 */
export function confusedLayers(
  layers: readonly string[],
  stays: readonly string[],
  tensors: Iterable<string>,
): ReadonlyMap<string, string> {
  const confused = new Map<string, string>();
  const losing = layersWithin(layers, tensors);
  for (const [layer, tensor] of losing) {
    confused.set(layer, `transformers would lose ${quote(tensor)}, which has its name in it`);
  }
  const queue = [...stays, ...confused.keys()];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    for (const layer of layers) {
      if (confused.has(layer) || layer === name || !layer.includes(name)) continue;
      confused.set(layer, `transformers would skip it with ${quote(name)}, which is a part of its name`);
      queue.push(layer);
    }
  }
  return confused;
}

/** Layers whose names stand in that of a tensor which is not theirs, with it. */
function layersWithin(layers: readonly string[], tensors: Iterable<string>): ReadonlyMap<string, string> {
  const names = new Set(layers);
  const starts = new Set(layers.map((layer) => layer.slice(0, START)));
  const lengths = [...new Set(layers.map(({ length }) => length))];
  const found = new Map<string, string>();
  const shortest = Math.min(START, ...lengths);
  for (const tensor of tensors) {
    for (let at = 0; at + shortest <= tensor.length; at++) {
      const start = tensor.slice(at, at + START);
      if (!starts.has(start) && lengths.every((length) => length >= START)) continue;
      for (const length of lengths) {
        const part = tensor.slice(at, at + length);
        if (part.length < length || !names.has(part) || (at === 0 && tensor[length] === '.')) continue;
        if (!found.has(part)) found.set(part, tensor);
      }
    }
  }
  return found;
}
