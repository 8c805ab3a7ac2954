import type { Option } from '../../matrix/option.js';

/** The option of a model that an adapter is merged into. */
export interface AdapterOption {
  /**
   * A folder with a LoRA adapter as peft saves it (`adapter_config.json`, `adapter_model.safetensors`): what it adds to weights,
   * `scale * B A`, is added before they are quantized, as peft's `merge_and_unload` does it. Ranks are those of its matrices, alphas and
   * `use_rslora` those of its description; `fan_in_fan_out` too. Weights keep their type. Two matrices of a few layers are in memory at a time.
   * Importance is that of the model without it, but for `tune`, which finds it with it where it is `'auto'`.
   *
   * @default undefined
   * @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for what is no such adapter (DoRA and other methods, trained biases, modules that are saved whole), or one of
   *   another model; `ERR_CHECKPOINT_FORMAT`, `ERR_IO`.
   */
  readonly adapter?: string | undefined;
}

/** In the shape of `OPTIONS` of one matrix. */
export const ADAPTER_OPTION: Option<string | undefined> = {
  default: undefined,
  expected: 'the path of a folder',
  accepts: (value) => value === undefined || (typeof value === 'string' && value !== ''),
  help: 'LoRA adapter (a folder of peft) that is merged into the weights first',
  parse: (text) => text,
};
