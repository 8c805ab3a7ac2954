import { HqqError } from '../../messages/errors.js';
import { quoteSome } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import { splitSets } from '../engines.js';
import { isExpert, type RowForm } from '../rows/form.js';
import type { PlannedLayer, StayingLayer } from '../scheme.js';

// What config.json says of the layers, for the library and the engines that read its configuration.

type Layer = PlannedLayer<RowForm>;

/** Layers that are stored alike. */
interface Group {
  readonly weights: unknown;
  readonly layers: Layer[];
}

/** Groups of layers that are stored alike, the largest last: it is said of all linear layers, the others by name before it. */
function groupsOf(layers: readonly Layer[]): readonly Group[] {
  const groups = new Map<string, Group>();
  for (const layer of layers) {
    const { config, wholeRows } = layer.form;
    const weights = {
      ...{ num_bits: config.nbits, type: 'int', symmetric: config.zeroPoint === 'symmetric' },
      ...{ strategy: wholeRows ? 'channel' : 'group', group_size: wholeRows ? null : config.groupSize, dynamic: false },
    };
    const key = JSON.stringify(weights);
    const group = groups.get(key) ?? { weights, layers: [] };
    group.layers.push(layer);
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => a.layers.length - b.layers.length);
}

/**
 * Refuses experts that are not all stored alike: transformers decodes all of them as those of one group, without a message where that is
 * another one.
 */
function checkExperts(groups: readonly Group[], stays: readonly StayingLayer[]): void {
  const with_ = groups.filter((group) => group.layers.some(({ site }) => isExpert(site.name)));
  if (with_.length === 0) return;
  const first = with_[0]!.layers.find(({ site }) => isExpert(site.name))!;
  const dense = stays.find(({ layer }) => isExpert(layer));
  const other = dense?.layer ?? with_[1]?.layers.find(({ site }) => isExpert(site.name))?.site.name;
  if (other === undefined) return;
  const message =
    'Expected all experts of compressed-tensors to have the same bits and groups, or to stay as they are all of them, but ' +
    `${quoteSome([other])} is not stored as ${quoteSome([first.site.name])} is: transformers would decode one as the other, without a message.`;
  throw new HqqError(
    'ERR_CHECKPOINT_CONTENT',
    `${message} Give all of them the same (--override "*.experts.*:..."), or exclude them all (--exclude "*.experts.*").`,
  );
}

/** What transformers knows the group of the experts by (integrations/compressed_tensors.py, get_experts_scheme). */
const EXPERTS_TARGET = 're:.*[.]experts[.][0-9]+[.].*';

const ROUTERS = 're:.*[.]router$';

const isSymmetric = ({ form }: Layer) => form.config.zeroPoint === 'symmetric';

/**
 * Layers whose weight transformers reads as it loads, when it is still packed, and then does not load the model. Told to unpack all as
 * it reads them, it does; but it takes all layers for such as one of them then.
 */
export function unloadedBeside(
  layers: readonly Layer[],
  tensors: ReadonlySet<string>,
  engine = 'transformers',
): ReadonlyMap<string, string> {
  const read = layers.filter(({ site }) => site.readAtLoading);
  if (engine !== 'transformers' || read.length === 0) return new Map();
  const others = groupsOf(layers.filter(({ site }) => !site.readAtLoading));
  const frozen = hasFrozenNorms(tensors);
  const alike = others.length > 1 || frozen ? undefined : (others[0] ?? groupsOf(read).at(-1)!).weights;
  const able = frozen
    ? 'cannot where norms of batches are frozen'
    : 'can where all layers have the same bits and groups';
  const why = `transformers 5 reads its weight as it loads, and ${able} (--for vllm quantizes it)`;
  const unlike = groupsOf(read).filter(({ weights }) => JSON.stringify(weights) !== JSON.stringify(alike));
  return new Map(unlike.flatMap((group) => group.layers.map(({ site }) => [site.name, why] as const)));
}

/** Whether norms of batches have no parameters: what unpacks layers as they are read (transformers 5.24) takes every weight for one. */
function hasFrozenNorms(tensors: ReadonlySet<string>): boolean {
  return [...tensors].some((name) => {
    const norm = name.endsWith('.running_var') ? name.slice(0, -'.running_var'.length) : undefined;
    return norm !== undefined && !tensors.has(`${norm}.num_batches_tracked`);
  });
}

/** By both of its names, where a layer has two: transformers looks for the one, vLLM for the other. */
const namesOf = (layer: string, module: string) => (layer === module ? [layer] : [layer, module]);

/** What tells the layers of a group: the largest is all that no other names. */
function targetsOf(
  layers: readonly Layer[],
  groups: number,
  isLast: boolean,
  moduleOf: (layer: string) => string,
): readonly string[] {
  const experts = groups > 1 && layers.some(({ site }) => isExpert(site.name)) ? [EXPERTS_TARGET] : [];
  if (isLast) return [...experts, 'Linear'];
  const named = layers.filter(({ site }) => !isExpert(site.name));
  return [...experts, ...named.flatMap(({ site }) => namesOf(site.name, moduleOf(site.name)))];
}

/**
 * The `quantization_config` of such layers.
 *
 * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for layers with zeros of their own that are not all stored alike.
 */
export function configurationOf(
  layers: readonly Layer[],
  stays: readonly StayingLayer[],
  moduleOf: (layer: string) => string = (name) => name,
): unknown {
  const groups = groupsOf(layers);
  const asymmetric = layers.filter((layer) => !isSymmetric(layer));
  if (asymmetric.length > 0 && groups.length > 1) {
    const like = groups.at(-1)!.layers[0]!;
    const other = groups[0]!.layers[0]!;
    throw new HqqError(
      'ERR_CHECKPOINT_CONTENT',
      `Expected all layers of compressed-tensors to have the same bits, groups and kind of zeros where zeros are integers, but ` +
        `${quoteSome([other.site.weight.name])} is not stored as ${quoteSome([like.site.weight.name])} is: transformers would decode one ` +
        'as the other, without a message. Use zeroPoint (--zero-point) symmetric, which may be mixed; or exclude (--exclude) one of them.',
    );
  }
  checkExperts(groups, stays);
  // Without these two, transformers 5.23 and 5.24 refuse zeros of layers, and do not load layers whose weight they read as they load; all
  // others take them with and without.
  const unpacked = asymmetric.length > 0 || (groups.length === 1 && layers.some(({ site }) => site.readAtLoading));
  const ignored = stays.flatMap(({ layer, module }) => namesOf(layer, module));
  // transformers 5 calls some routers otherwise than files do (PhiMoE), and packs what no name here keeps.
  const routers = layers.some(({ site }) => isExpert(site.name)) ? [ROUTERS] : [];
  const isHead = layers.some(({ site }) => moduleOf(site.name) === 'lm_head');
  return {
    ...{ quant_method: 'compressed-tensors', format: 'pack-quantized', quantization_status: 'compressed' },
    ...(unpacked ? { dequantize: true, run_compressed: false } : {}),
    config_groups: Object.fromEntries(
      groups.map(({ weights, layers: own }, index) => [
        `group_${index}`,
        {
          targets: targetsOf(own, groups.length, index === groups.length - 1, moduleOf),
          ...{ input_activations: null, output_activations: null, weights },
        },
      ]),
    ),
    ignore: [...new Set([...(isHead ? [] : ['lm_head']), ...ignored, ...routers])],
    ...{ kv_cache_scheme: null, global_compression_ratio: null },
  };
}

/** What people should know. */
export function notesOf(layers: readonly Layer[], stays: readonly StayingLayer[]): readonly string[] {
  const notes: string[] = [];
  const asymmetric = layers.filter((layer) => !isSymmetric(layer));
  if (asymmetric.some(({ site }) => isExpert(site.name))) {
    notes.push(
      'Experts with integer zeros: transformers 5 does not load these, vLLM may. Use zeroPoint (--zero-point) symmetric for models with experts.',
    );
  }
  if (stays.some(({ layer }) => isExpert(layer))) {
    notes.push(
      'Experts stay as they are: transformers 5 does not load them beside layers that are quantized (it fails while it loads); vLLM may.',
    );
  }
  const coarse = layers.filter(({ form: { config } }) => config.nbits === 8 && config.scaleDtype === 'bfloat16');
  if (coarse.length > 0) {
    notes.push(
      `Scales of ${plural(coarse.length, 'layer')} are bfloat16, as the model is, which adds about a third to the error of 8 bits. A model of float16 ` +
        'loses nothing: convert it first, or load it so and store scales as float16 (--meta-dtype float16).',
    );
  }
  const split = splitSets(
    layers.map(({ site: { name }, form }) => ({ name, form })),
    ({ form: { config, wholeRows } }) => [config.nbits, wholeRows ? 'rows' : config.groupSize, config.zeroPoint].join(),
  );
  if (split.length > 0) {
    notes.push(
      `vLLM and SGLang compute ${split.map(({ parts }) => parts.join(', ')).join('; ')} as one layer each, and refuse parts that are stored differently: give them the same bits and groups.`,
    );
  }
  return notes;
}
