import { HqqError } from '../../messages/errors.js';
import { quoteSome } from '../../messages/text.js';
import type { RowForm } from '../rows/form.js';
import type { PlannedLayer, StayingLayer } from '../scheme.js';

/** A layer of a block that is repeated: the number of the block, and what the layer is called in it. */
const IN_BLOCK = /^(.*?\.)(\d+)\.(.+)$/;

/** Whether a layer is in a block that is repeated. */
export const isInBlock = (name: string): boolean => IN_BLOCK.test(name);

const placeOf = (name: string) => IN_BLOCK.exec(name)?.[3];

/**
 * The `quantization_config` of such layers.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for layers that are not all stored alike, and for one that is quantized in some blocks only.
 */
export function configurationOf(layers: readonly PlannedLayer<RowForm>[], stays: readonly StayingLayer[]): unknown {
  const { config, wholeRows } = layers[0]!.form;
  const other = layers.find(
    ({ form }) =>
      form.config.nbits !== config.nbits ||
      form.config.groupSize !== config.groupSize ||
      form.config.zeroPoint !== config.zeroPoint,
  );
  // Whole rows may differ in length.
  if (other && !(wholeRows && other.form.wholeRows && other.form.config.nbits === config.nbits)) {
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected all layers of GPTQ to have the same bits, groups and kind of zeros, but ${quoteSome([other.site.weight.name])} differs from ` +
        `${quoteSome([layers[0]!.site.weight.name])}. Exclude it, or write --to compressed-tensors, which may mix them.`,
    );
  }
  const places = new Set(layers.map(({ site }) => placeOf(site.name)!));
  const dense = stays.filter(({ layer }) => isInBlock(layer));
  const split = dense.find(({ layer }) => places.has(placeOf(layer)!));
  if (split !== undefined) {
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected ${quoteSome([split.layer])} to be quantized as it is in other blocks: loaders of GPTQ take layers by what they are called in ` +
        'their block. Exclude it in all blocks (--exclude), or write --to compressed-tensors, which names layers one by one.',
    );
  }
  const symmetric = config.zeroPoint === 'symmetric';
  const format = symmetric ? 'gptq' : 'gptq_v2';
  return {
    ...{ quant_method: 'gptq', bits: config.nbits, group_size: wholeRows ? -1 : config.groupSize, desc_act: false },
    ...{ sym: symmetric, lm_head: false, checkpoint_format: format, format },
    ...(dense.length > 0 ? { modules_in_block_to_quantize: [[...places]] } : {}),
  };
}
