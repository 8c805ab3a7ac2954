// What bench/quality.mjs measured of a model, as tables.
import { table } from './measure.mjs';

/** Those that are the same in two rows of which one is tuned. */
const SAME = ['nbits', 'groupSize', 'metaBits', 'solver', 'importance', 'refine'];

/** Lines to print. */
export function qualityTables({ name, text, window, tokens, rows, ggml }) {
  const isTuned = rows.some((row) => row.tune);
  const found = (row, tune) =>
    rows.find((other) => other.tune === tune && SAME.every((key) => other[key] === row[key]))?.perplexity.toFixed(2) ??
    '';
  const line = (row) => [
    ...(row.nbits === undefined
      ? ['original', '', '', '']
      : [`${row.nbits} bits`, `${row.groupSize}, ${row.metaBits} bits`, row.solver, row.importance]),
    row.bitsPerWeight?.toFixed(2) ?? '',
    (row.bytes / 1e6).toFixed(2),
    row.relativeError === undefined ? '' : (100 * row.relativeError).toFixed(2),
    row.perplexity.toFixed(2),
    ...(isTuned ? [found(row, true), found(row, 'model')] : []),
  ];
  const lines = [
    `${name}; perplexity of ${text}, ${tokens} tokens in windows of ${window}:`,
    table([
      [
        ...['', 'group, scales', 'solver', 'importance', 'bits per weight', 'MB', '% relative error', 'perplexity'],
        ...(isTuned ? ['tuned', 'tuned + model'] : []),
      ],
      ...rows.filter((row) => !row.tune).map(line),
    ]),
    '',
  ];
  if (ggml.length === 0) return lines;
  const theirs = (row) => [row.type, row.importance, row.bitsPerWeight.toFixed(2), row.perplexity.toFixed(2)];
  return [
    ...lines,
    "llama.cpp's types, by its own quantizer, in the same runtime:",
    table([['', 'importance', 'bits per weight', 'perplexity'], ...ggml.map(theirs)]),
    '',
  ];
}
