/** A column: its title, and the side that cells keep to. */
export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

const GAP = '  ';

/** Cells in aligned columns under a line of titles, indented by two spaces, one line a row. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  return layOut([columns.map(({ title }) => title), ...rows], columns, true);
}

/** Labels on the left, texts on the right: the shape of a summary. A text of several lines stays in its column. */
export function pairs(rows: readonly (readonly [label: string, text: string])[]): string {
  const lines = rows.flatMap(([label, text]) => text.split('\n').map((line, i) => [i === 0 ? label : '', line]));
  return layOut(lines, [{ title: '' }, { title: '' }], false);
}

function layOut(lines: readonly (readonly string[])[], columns: readonly Column[], titled: boolean): string {
  const widths = columns.map((_, c) => lines.reduce((width, cells) => Math.max(width, cells[c]?.length ?? 0), 0));
  const text = lines.map((cells) => {
    const padded = columns.map(({ align }, c) => {
      const cell = cells[c] ?? '';
      return align === 'right' ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!);
    });
    return `  ${padded.join(GAP)}`.trimEnd();
  });
  if (titled && text[0] !== undefined) text[0] = dim(text[0]);
  return `${text.join('\n')}\n`;
}

/** Whether standard output understands colours and its owner wants them. */
function coloured(): boolean {
  return process.stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
}

function dim(text: string): string {
  return coloured() ? `\x1b[2m${text}\x1b[22m` : text;
}

/** A title line, or a word that matters. */
export function bold(text: string): string {
  return coloured() ? `\x1b[1m${text}\x1b[22m` : text;
}
