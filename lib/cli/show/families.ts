import { formatCount } from '../../messages/units.js';

/** Rows that differ in their names' numbers only, as one. */
interface Family<T> {
  /** `model.layers.*.mlp.up_proj.weight`, or the one name. */
  readonly name: string;
  readonly members: readonly T[];
}

/**
 * Groups tensors that are the same in everything but the numbers in their names, in the order of their first members. `alike`
 * says what else must be equal, as text. Past `most` families, what belongs to none of them is left out.
 */
export function families<T extends { readonly name: string }>(
  tensors: readonly T[],
  alike: (tensor: T) => string,
  most = Infinity,
): Family<T>[] {
  const groups = new Map<string, { name: string; members: T[] }>();
  for (const tensor of tensors) {
    const pattern = tensor.name.replaceAll(/(?<=^|\.)\d+(?=\.|$)/g, '*');
    const key = `${pattern}\n${alike(tensor)}`;
    const group = groups.get(key);
    if (group) group.members.push(tensor);
    else if (groups.size < most) groups.set(key, { name: pattern, members: [tensor] });
  }
  return [...groups.values()].map(({ name, members }) => ({
    name: members.length === 1 ? members[0]!.name : name,
    members,
  }));
}

/** `x32` for several, nothing for one. */
export function times(count: number): string {
  return count === 1 ? '' : `x${formatCount(count)}`;
}
