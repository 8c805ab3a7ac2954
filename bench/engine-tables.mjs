// What is printed of files in other engines.
import { table } from './measure.mjs';

/** Of bench/llama.cpp.mjs. */
export function llamaCppTables({ missing, results = [], skipped = [] }) {
  if (missing) return `Skipped llama.cpp: ${missing}\n`;
  const figure = (of) => of?.perplexity.toFixed(3) ?? '';
  const texts = results.map(({ name, importance, tokens, window, rows }) => {
    const line = ({ type, ours, theirs }) => [type, (ours.bytes / 1e6).toFixed(2), figure(ours), figure(theirs)];
    const title = `${name} in llama.cpp: perplexity of ${tokens} tokens in windows of ${window}; ours with importance ${importance}:`;
    return `${title}\n${table([['', 'MB', 'ours', "llama.cpp's"], ...rows.map(line)])}\n`;
  });
  return [...texts, ...skipped.map(({ name, missing: what }) => `Skipped ${name}: there is no ${what}.\n`)].join('\n');
}

/** Of bench/onnxruntime.mjs. */
export function onnxTables({ missing, onnxruntime, python, errors, graphs, perplexities = [], times }) {
  if (missing) return `Skipped onnxruntime: ${missing}\n`;
  const texts = [`onnxruntime-node ${onnxruntime}, 1 thread`];
  if (!python) texts.push("Without onnxruntime's quantizer: HQQ_PYTHON names a Python that has it.");
  const short = (error) => error?.toFixed(4).replace(/^0/, '') ?? '';
  if (errors) {
    const names = ['float', 'integer', 'symmetric', 'theirs', 'theirsSymmetric'];
    const line = (row) => [`${row.nbits} bits, ${row.groupSize}`, ...names.map((name) => short(row[name]))];
    const header = ['', 'float', 'integer', 'symmetric', "onnxruntime's", 'its symmetric'];
    const title = `Relative errors of ${errors.n} x ${errors.k} gaussian weights, by bits and groups:`;
    texts.push(`${title}\n${table([header, ...errors.rows.map(line)])}`);
  }
  if (graphs) {
    const line = ({ zeroPoint, groupSize, correction, far }) => [
      `${zeroPoint}, groups of ${groupSize}, correction ${correction}`,
      far.toExponential(1),
    ];
    const title =
      'Logits of llama-2.3m-books at accuracy level 0, relative difference to those of its own weights in floats:';
    texts.push(`${title}\n${table([['', ''], ...graphs.map(line)])}`);
  }
  for (const { name, text, window, tokens, rows } of perplexities) {
    const [float] = rows;
    const added = ({ perplexity, error }) =>
      error === undefined ? '' : `${(perplexity - float.perplexity).toFixed(3)} +- ${error.toFixed(3)}`;
    const rtn = rows.find((row) => row.name === "onnxruntime's" && row.accuracyLevel === 4);
    const share = (row) =>
      row.perplexity === undefined || rtn?.perplexity === undefined || row === float
        ? ''
        : ((row.perplexity - float.perplexity) / (rtn.perplexity - float.perplexity)).toFixed(2);
    const line = (row) => [
      row.name,
      ...(row.nbits ? [`${row.nbits}, ${row.groupSize}`, row.importance ?? '', `${row.accuracyLevel}`] : ['', '', '']),
      ...[row.bytes ? (row.bytes / 1e6).toFixed(2) : '', row.perplexity?.toFixed(3) ?? '', added(row), share(row)],
    ];
    const header = ['', 'bits, group', 'importance', 'level', 'MB', 'perplexity', 'added', "of onnxruntime's"];
    texts.push(
      `${name}: perplexity of ${text}, ${tokens} tokens in windows of ${window}:\n${table([header, ...rows.map(line)])}`,
    );
  }
  if (times) {
    const names = ['fp32', 'symmetric', 'integer', 'float'];
    const cell = ({ ms, low, high }) => `${ms.toFixed(3)} (${low.toFixed(3)}-${high.toFixed(3)})`;
    const line = (row) => [
      ...[`${row.batch} rows`, ...names.map((name) => cell(row[name]))],
      ...[(row.float.ms / row.integer.ms).toFixed(2), (row.fp32.ms / row.float.ms).toFixed(1)],
    ];
    const title = `Milliseconds of ${times.size} x ${times.size}, 4 bits in groups of ${times.groupSize}, medians and middle halves:`;
    texts.push(`${title}\n${table([['', ...names, 'float / integer', 'fp32 / float'], ...times.rows.map(line)])}`);
  }
  return `${texts.join('\n\n')}\n`;
}
