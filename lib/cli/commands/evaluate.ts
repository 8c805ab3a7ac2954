import { formatBytes, formatCount, plural } from '../../messages/units.js';
import { type EvaluateReport, evaluateModels, type ModelScore } from '../../runtime/evaluate/evaluate.js';
import { EVALUATE_OPTIONS, resolveEvaluateOptions } from '../../runtime/evaluate/options.js';
import { defineCommand, toJson } from '../command.js';
import { ACTIVATIONS, fromOption, JSON_FLAG, NO_PROGRESS, THREADS, text } from '../flags.js';
import { readTextFile } from '../input.js';
import { withProgress } from '../show/progress.js';
import { table } from '../show/table.js';

export const evaluate = defineCommand({
  name: 'evaluate',
  args: ['original', 'quantized...'],
  summary: 'tell what quantization did to a language model',
  details: [
    'Runs the original and the others on the same tokens: perplexity of each; divergence, the mean Kullback-Leibler divergence of the',
    "probabilities of the next token from the original's, in nats; and how often both find the same token the likeliest. Without --text,",
    'on random token ids, where divergence and agreement tell much, and perplexity little. Models go through memory block by block.',
    'Models are folders of a Llama, Mistral or Qwen2. A text needs the tokenizer.json of the original and the package',
    '@huggingface/tokenizers: npm install @huggingface/tokenizers',
  ].join('\n'),
  flags: {
    text: text('file', 'the text to predict, as UTF-8; - is standard input'),
    tokens: fromOption(EVALUATE_OPTIONS.tokens),
    window: fromOption(EVALUATE_OPTIONS.window),
    seed: fromOption(EVALUATE_OPTIONS.seed),
    activations: ACTIVATIONS,
    threads: THREADS,
    json: JSON_FLAG,
    quiet: NO_PROGRESS,
  },
  plan([original, ...quantized], { text: file, json = false, quiet = false, ...options }) {
    resolveEvaluateOptions({ ...options, text: file });
    return async ({ signal, print }) => {
      const content = file === undefined ? undefined : await readTextFile(file, { signal, quiet });
      const report = await withProgress('evaluating', !json && !quiet, (update) =>
        evaluateModels(original!, quantized, {
          ...{ ...options, text: content, signal },
          onProgress: ({ model, stepsDone, stepsTotal }) => update({ done: stepsDone, total: stepsTotal, name: model }),
        }),
      );
      print(json ? toJson({ ...report, ...(file !== undefined && { text: file }) }) : describe(report));
    };
  },
});

function describe({ source, tokens, window, seed, original, quantized }: EvaluateReport): string {
  const columns = [
    { title: 'model' },
    { title: 'size', align: 'right' },
    { title: 'perplexity', align: 'right' },
    { title: 'divergence', align: 'right' },
    { title: 'same top token', align: 'right' },
  ] as const;
  const row = ({ path, bytes, perplexity, klDivergence, topAgreement }: ModelScore, isOriginal: boolean) => [
    ...[path, formatBytes(bytes), perplexity < 1e5 ? perplexity.toPrecision(5) : formatCount(Math.round(perplexity))],
    ...(isOriginal ? ['', ''] : [klDivergence.toPrecision(3), `${(100 * topAgreement).toFixed(1)} %`]),
  ];
  const what = { random: `random ids of seed ${seed}`, text: 'a text', ids: 'ids' }[source];
  const rows = [row(original, true), ...quantized.map((score) => row(score, false))];
  return `${plural(tokens, 'token')} of ${what}, in windows of ${window}\n\n${table(columns, rows)}`;
}
