import { bytesOf } from '../../compute/floats.js';
import { layerOf } from '../../containers/names.js';
import { resolveQuantConfig } from '../../matrix/config.js';
import { geometryOf } from '../../matrix/geometry.js';
import type { QuantizedTensor } from '../../matrix/weight.js';
import type { WholeTensor } from '../scheme.js';
import { type HqqParts, largeSpecs, smallTensors } from './state-dict.js';

/** The tensors that a matrix becomes which is quantized already: its numbers as they are, scale and zero in float32. */
export function holdTensor(weight: string, tensor: QuantizedTensor): readonly WholeTensor[] {
  const { nbits, groupSize, axis, packing, shape, packed, scale, zero } = tensor;
  const parts: HqqParts = {
    site: { name: layerOf(weight), weight: { name: weight }, shape, stored: 'out-in' },
    form: {
      config: { ...resolveQuantConfig({ nbits, axis }), groupSize },
      ...{ packing, geometry: geometryOf(shape, { groupSize, axis }), metaDtype: 'float32', settled: true },
    },
  };
  const arrays = [packed, scale, zero];
  const large = largeSpecs(parts).map((spec, index) => ({ ...spec, bytes: bytesOf(arrays[index]!) }));
  return [...large, ...smallTensors(parts)];
}
