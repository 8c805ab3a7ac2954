import { closest, distance } from 'fastest-levenshtein';

/** ` Did you mean "x"?` for the nearest of `names`, or nothing when none is near. */
export function suggestion(typed: string, names: readonly string[]): string {
  const fold = (name: string) => name.toLowerCase().replaceAll(/[-_]/g, '');
  const folded = names.map(fold);
  const near = closest(fold(typed), folded);
  const name = names[folded.indexOf(near)];
  return name !== undefined && distance(fold(typed), near) <= Math.max(2, Math.floor(typed.length / 3)) ? ` Did you mean "${name}"?` : '';
}
