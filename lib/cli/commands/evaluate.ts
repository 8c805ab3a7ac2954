import { formatBytes, formatCount, plural } from '../../messages/units.js';
import { isEncoderModel } from '../../runtime/encoder/encoder.js';
import { type EncoderReport, evaluateEncoders } from '../../runtime/encoder/evaluate-encoders.js';
import { type EvaluateReport, evaluateModels, type ModelScore } from '../../runtime/evaluate/evaluate.js';
import { EVALUATE_OPTIONS, resolveEvaluateOptions } from '../../runtime/evaluate/options.js';
import { defineCommand, toJson } from '../command.js';
import { ACTIVATIONS, ADAPTER, fromOption, JSON_FLAG, NO_PROGRESS, THREADS, text } from '../flags.js';
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
    'Models are folders that hqq/runtime runs (docs/runtime.md lists their architectures). Of encoders of the BERT family it tells the',
    'cosine of the vectors of sentences, which are the lines of the text, with those of the original. A text needs the tokenizer.json of the original and the package',
    '@huggingface/tokenizers: npm install @huggingface/tokenizers',
  ].join('\n'),
  flags: {
    text: text('file', 'the text to predict, as UTF-8; - is standard input'),
    tokens: fromOption(EVALUATE_OPTIONS.tokens),
    window: fromOption(EVALUATE_OPTIONS.window),
    seed: fromOption(EVALUATE_OPTIONS.seed),
    activations: ACTIVATIONS,
    adapter: {
      ...ADAPTER,
      help: 'LoRA adapter (a folder of peft) beside the weights of all; may be given again: they add up',
    },
    threads: THREADS,
    json: JSON_FLAG,
    quiet: NO_PROGRESS,
  },
  plan([original, ...quantized], { text: file, json = false, quiet = false, ...options }) {
    resolveEvaluateOptions({ ...options, text: file });
    return async ({ signal, print }) => {
      const content = file === undefined ? undefined : await readTextFile(file, { signal, quiet });
      const encodes = await isEncoderModel(original!);
      const report = await withProgress<EncoderReport | EvaluateReport>('evaluating', !json && !quiet, (update) =>
        (encodes ? evaluateEncoders : evaluateModels)(original!, quantized, {
          ...{ ...options, text: content, signal },
          onProgress: ({ model, stepsDone, stepsTotal }) => update({ done: stepsDone, total: stepsTotal, name: model }),
        }),
      );
      if (json) print(toJson({ ...report, ...(file !== undefined && { text: file }) }));
      else print('sentences' in report ? describeEncoders(report) : describe(report));
    };
  },
});

const sourceName = (source: EvaluateReport['source'], seed: number | undefined) =>
  ({ random: `random ids of seed ${seed}`, text: 'a text', ids: 'ids' })[source];

function describeEncoders({ source, sentences, tokens, seed, original, quantized }: EncoderReport): string {
  const columns = [
    { title: 'model' },
    { title: 'size', align: 'right' },
    { title: 'cosine', align: 'right' },
    { title: 'least', align: 'right' },
  ] as const;
  const rows = [
    [original.path, formatBytes(original.bytes), '', ''],
    ...quantized.map(({ path, bytes, cosine, leastCosine }) => {
      return [path, formatBytes(bytes), cosine.toFixed(5), leastCosine.toFixed(5)];
    }),
  ];
  const what = `${plural(sentences, 'sentence')} of ${sourceName(source, seed)}, ${plural(tokens, 'token')}`;
  return `${what}: vectors against the original's\n\n${table(columns, rows)}`;
}

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
  const rows = [row(original, true), ...quantized.map((score) => row(score, false))];
  return `${plural(tokens, 'token')} of ${sourceName(source, seed)}, in windows of ${window}\n\n${table(columns, rows)}`;
}
