import { bytesOf } from '../../compute/floats.js';
import { layerOf } from '../../containers/names.js';
import { geometryOf } from '../../matrix/geometry.js';
import { scalesOfSet } from '../../matrix/metadata.js';
import { resolveQuantConfig } from '../../matrix/options.js';
import type { QuantizedMeta, QuantizedTensor } from '../../matrix/weight.js';
import type { WholeTensor } from '../scheme.js';
import { byteMetaTensors } from './byte-meta.js';
import { groupsOf, type HqqParts, largeSpecs, smallTensors } from './state-dict.js';
import { checkMeta } from './wide-meta.js';

/**
 * The tensors that a matrix becomes which is quantized already: its numbers as they are, scale and zero in float32, or as the bytes
 * that they were widened from.
 */
export function holdTensor(weight: string, tensor: QuantizedTensor): readonly WholeTensor[] {
  const { nbits, groupSize, axis, packing, shape, packed, scale, zero } = tensor;
  checkMeta(tensor);
  const geometry = geometryOf(shape, { groupSize, axis });
  const meta = bytesAsWritten(tensor.meta, geometry.groups);
  const parts: HqqParts = {
    site: { name: layerOf(weight), weight: { name: weight }, shape, stored: 'out-in' },
    form: {
      config: { ...resolveQuantConfig({ nbits, axis, metaBits: meta === undefined ? 16 : 8 }), groupSize },
      ...{ packing, geometry, metaDtype: 'float32', settled: true },
    },
  };
  const [codes, ...metas] = largeSpecs(parts);
  const own = { ...codes!, bytes: bytesOf(packed) };
  const others =
    meta === undefined
      ? metas.map((spec, index) => ({ ...spec, bytes: bytesOf([scale, zero][index]!) }))
      : byteMetaTensors(parts.site.name, groupsOf(parts.form), meta);
  return [own, ...others, ...smallTensors(parts)];
}

/** Bytes of scales and zeros, where they are in the sets that layers are written with; those of others come in float32. */
function bytesAsWritten(meta: QuantizedMeta | undefined, groups: number): Required<QuantizedMeta> | undefined {
  const { scale, zero } = meta ?? {};
  const fits = scale?.scale.length === groups / scalesOfSet(groups) && zero?.scale.length === 1;
  return fits ? { scale: scale!, zero: zero! } : undefined;
}
