import { outputColumns, wrap, wrapText } from './columns.js';

/** A column: its title, and the side that cells keep to. */
interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

type Cells = readonly string[];

const GAP = '  ';
const MARGIN = '  ';
/** What belongs to a line above it. */
const INDENT = '    ';
/** Narrowest text beside its label. */
const LEAST_TEXT = 24;

/**
 * Cells in aligned columns under a line of titles, one line a row. On a terminal that is too narrow for that, the first cell of
 * each row is a line by itself, with the others in columns below it; where not even these fit, as a text, each with its title.
 */
export function table(columns: readonly Column[], rows: readonly Cells[]): string {
  const width = outputColumns();
  const lines = [columns.map(({ title }) => title), ...rows];
  const [titles, ...body] = align(lines, columns);
  if (fits([titles!, ...body], width - MARGIN.length)) return text([dim(MARGIN + titles!), ...body.map(inMargin)]);
  const names = lines.map(([first]) => wrapText(first!, width, INDENT, MARGIN));
  const rest = align(
    lines.map(([, ...others]) => others),
    columns.slice(1),
  );
  if (fits(rest, width - INDENT.length)) {
    const blocks = rest.map((line, i) => [...names[i]!, INDENT + line]);
    return text([...blocks[0]!.map(dim), ...blocks.slice(1).flat()]);
  }
  const blocks = rows.map(([, ...others], i) => {
    const told = others.map((cell, c) => `${columns[c + 1]!.title} ${cell}`.trim()).filter((cell) => cell !== '');
    const words = told.map((word, w) => (w < told.length - 1 ? `${word},` : word));
    return [...names[i + 1]!, ...wrap(words, width, INDENT, INDENT)];
  });
  return text([...names[0]!.map(dim), ...blocks.flat()]);
}

/**
 * Labels on the left, texts on the right: the shape of a summary. A text of several lines stays in its column, and so does one
 * that is too long for a terminal; where little room is left beside the labels, it goes below.
 */
export function pairs(rows: readonly (readonly [label: string, text: string])[]): string {
  const width = outputColumns();
  const labels = Math.max(...rows.map(([label]) => label.length));
  const room = width - MARGIN.length - labels - GAP.length;
  const longest = Math.max(...rows.flatMap((row) => row[1].split('\n')).map(({ length }) => length));
  const beside = room >= Math.min(LEAST_TEXT, longest);
  const lines = rows.flatMap(([label, whole]) => {
    const pieces = whole.split('\n').flatMap((line) => wrapText(line, beside ? room : width - INDENT.length));
    if (!beside) return [MARGIN + label, ...pieces.map((piece) => INDENT + piece)];
    return pieces.map((piece, i) => inMargin(`${(i === 0 ? label : '').padEnd(labels)}${GAP}${piece}`));
  });
  return text(lines);
}

/** Lines of text as they are, or, on a terminal that is too narrow for them, as one paragraph. */
export function paragraph(lines: string): string {
  const width = outputColumns();
  if (fits(lines.split('\n'), width)) return `${lines}\n`;
  return text(wrapText(lines.replaceAll('\n', ' '), width));
}

/** A line below a table. */
export function footnote(line: string): string {
  return text(wrapText(line, outputColumns(), INDENT, MARGIN));
}

function align(lines: readonly Cells[], columns: readonly Column[]): string[] {
  const widths = columns.map((_, c) => lines.reduce((width, cells) => Math.max(width, cells[c]?.length ?? 0), 0));
  return lines.map((cells) => {
    const padded = columns.map((column, c) => {
      const cell = cells[c] ?? '';
      return column.align === 'right' ? cell.padStart(widths[c]!) : cell.padEnd(widths[c]!);
    });
    return padded.join(GAP).trimEnd();
  });
}

function fits(lines: readonly string[], width: number): boolean {
  return lines.every(({ length }) => length <= width);
}

function inMargin(line: string): string {
  return (MARGIN + line).trimEnd();
}

function text(lines: readonly string[]): string {
  return `${lines.join('\n')}\n`;
}

/** Whether standard output understands colours and its owner wants them. */
function coloured(): boolean {
  return process.stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
}

function dim(line: string): string {
  return coloured() ? `\x1b[2m${line}\x1b[22m` : line;
}

/** A title line, or a word that matters. */
export function bold(line: string): string {
  return coloured() ? `\x1b[1m${line}\x1b[22m` : line;
}
