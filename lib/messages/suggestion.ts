/** ` Did you mean "x"?` for the nearest of `names`, or nothing when none is near. */
export function suggestion(typed: string, names: readonly string[]): string {
  const fold = (name: string) => name.toLowerCase().replaceAll(/[-_]/g, '');
  const limit = Math.max(2, Math.floor(typed.length / 3));
  let nearest = '';
  let least = limit + 1;
  for (const name of names) {
    const edits = distance(fold(typed), fold(name));
    if (edits < least) [nearest, least] = [name, edits];
  }
  return least <= limit ? ` Did you mean "${nearest}"?` : '';
}

/** Characters to insert, delete or replace (Levenshtein), row by row of the usual table. */
function distance(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 0; i < a.length; i++) {
    const row = [i + 1];
    for (let j = 0; j < b.length; j++) {
      row.push(Math.min(row[j]! + 1, above[j + 1]! + 1, above[j]! + (a[i] === b[j] ? 0 : 1)));
    }
    above = row;
  }
  return above[b.length]!;
}
