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
