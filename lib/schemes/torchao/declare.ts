import type { TensorSpec } from '../../containers/container.js';
import { weightOf } from '../../containers/names.js';
import { DTYPES } from '../../matrix/dtype.js';
import type { RowForm } from '../rows/form.js';
import type { PlannedLayer } from '../scheme.js';

// What torchao and transformers are told of the layers: in config.json of all of them, in each file of each: loaders take the list of the last file.

type Layer = PlannedLayer<RowForm>;

/** The `quantization_config`: what most layers are; each says the same of itself. */
export function configurationOf(layers: readonly Layer[]): unknown {
  const counts = new Map<string, { count: number; readonly form: RowForm }>();
  for (const { form } of layers) {
    const key = `${form.config.nbits} ${form.config.groupSize}`;
    const row = counts.get(key) ?? { count: 0, form };
    row.count++;
    counts.set(key, row);
  }
  const { config } = [...counts.values()].reduce((most, row) => (row.count > most.count ? row : most)).form;
  const named = (type: string, data: unknown) => ({ _type: type, _data: data });
  return {
    ...{ quant_method: 'torchao', include_input_output_embeddings: false, modules_to_not_convert: null },
    untie_embedding_weights: false,
    quant_type: {
      default: {
        ...{ _type: 'IntxWeightOnlyConfig', _version: 2 },
        _data: {
          weight_dtype: named('torch.dtype', `int${config.nbits}`),
          granularity: { _type: 'PerGroup', _version: 1, _data: { group_size: config.groupSize } },
          mapping_type: named('MappingType', 'ASYMMETRIC'),
          scale_dtype: null,
          intx_packing_format: named('IntxPackingFormat', 'UNPACKED_TO_INT8'),
          intx_choose_qparams_algorithm: named('IntxChooseQParamsAlgorithm', 'AFFINE'),
        },
      },
    },
  };
}

/** What files say of the tensors of a model, each by the name that it has there. */
export function metadataOf(layers: readonly Layer[], others: readonly TensorSpec[]): Readonly<Record<string, string>> {
  const type = (name: string) => ({ _type: 'torch.dtype', _data: name });
  const pairs = new Map<string, string>();
  for (const { name } of others) pairs.set(name, JSON.stringify({ _type: 'Tensor' }));
  for (const { site, form } of layers) {
    const { nbits, groupSize, scaleDtype } = form.config;
    const data = {
      ...{ target_dtype: type(`int${nbits}`), block_size: [1, groupSize] },
      ...{ dtype: type(DTYPES[scaleDtype].torch.replace('torch.', '')), activation_quantization: null },
    };
    const names = ['qdata', 'scale', 'zero_point'];
    const tensor = { _type: 'IntxUnpackedToInt8Tensor', _data: data, _tensor_data_names: names };
    pairs.set(weightOf(site.name, false), JSON.stringify(tensor));
  }
  return Object.fromEntries([['tensor_names', JSON.stringify([...pairs.keys()])], ...pairs]);
}
