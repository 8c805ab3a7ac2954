/** `x` of `x.weight`. */
export function moduleOf(tensor: string): string {
  return tensor.slice(0, tensor.lastIndexOf('.'));
}
