/** What the weight of a layer ends in; one whose weight does not is called as its weight is: it is `bare`. */
const WEIGHT = '.weight';

/** The layer that a weight belongs to: `x` of `x.weight`, and of `x`. */
export function layerOf(weight: string): string {
  return weight.endsWith(WEIGHT) && weight.length > WEIGHT.length ? weight.slice(0, -WEIGHT.length) : weight;
}

/** The weight of a layer: `x.weight` of `x`, or `x` where it is bare. */
export function weightOf(layer: string, bare: boolean): string {
  return bare ? layer : layer + WEIGHT;
}

/** `x` of `x.weight`. */
export function moduleOf(tensor: string): string {
  return tensor.slice(0, tensor.lastIndexOf('.'));
}

type Config = Readonly<Record<string, unknown>>;

/** A configuration, and those of the parts of the model: `text_config`. */
export function configParts(config: Config = {}): readonly Config[] {
  const parts = Object.values(config).filter((part) => typeof part === 'object' && part !== null);
  return [config, ...(parts as Config[])];
}

/** `model_type` of a model, and of its parts. */
export function modelTypesOf(config: Config | undefined): readonly unknown[] {
  return configParts(config).map(({ model_type }) => model_type);
}

/** What a model is called in its configuration: `model_type` of it and of its parts, and its classes. */
export function kindsOf(config: Config | undefined): readonly unknown[] {
  const { architectures } = config ?? {};
  return [...modelTypesOf(config), ...(Array.isArray(architectures) ? architectures : [])];
}
