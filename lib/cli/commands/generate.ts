import { untilAborted } from '../../compute/signal.js';
import { formatNumber, formatSeconds, plural } from '../../messages/units.js';
import { loadLanguageModel } from '../../runtime/load.js';
import { GENERATE_OPTIONS, resolveGenerateOptions } from '../../runtime/text/generate-options.js';
import { defineCommand, toJson } from '../command.js';
import {
  ACTIVATIONS,
  ADAPTER,
  besideWeights,
  CACHE_DTYPE,
  fromOptions,
  HEAD,
  JSON_FLAG,
  MAX_CONTEXT,
  NO_PROGRESS,
  THREADS,
  text,
} from '../flags.js';
import { readText } from '../input.js';
import { say } from '../process.js';

const NOT_EMPTY = 'a text that is not empty';

export const generate = defineCommand({
  name: 'generate',
  args: ['model'],
  summary: 'let a language model go on with a text',
  details: [
    'Streams text to standard output until the model ends it. <model> is a folder that hqq/runtime runs, quantized or not,',
    'with its tokenizer.json; the package @huggingface/tokenizers must be installed: npm install @huggingface/tokenizers',
  ].join('\n'),
  flags: {
    prompt: text('text', 'what to go on with; - is standard input', { required: true, expected: NOT_EMPTY }),
    ...fromOptions(GENERATE_OPTIONS),
    stop: {
      ...text('text', 'a text that ends the generation, and is not part of it', { expected: NOT_EMPTY }),
      repeats: true,
      type: [] as readonly string[],
    },
    activations: ACTIVATIONS,
    head: HEAD,
    cacheDtype: CACHE_DTYPE,
    adapter: ADAPTER,
    maxContext: MAX_CONTEXT,
    threads: THREADS,
    json: JSON_FLAG,
    quiet: NO_PROGRESS,
  },
  plan(
    [path],
    {
      prompt: given,
      activations,
      head,
      cacheDtype,
      adapter,
      maxContext,
      threads,
      json = false,
      quiet = false,
      ...options
    },
  ) {
    const load = { activations, head, cacheDtype, maxContext, threads };
    const beside = besideWeights(adapter);
    resolveGenerateOptions(options); // before gigabytes are read
    return async ({ signal, print }) => {
      const prompt = await readText(given!, 'a prompt', { signal, quiet });
      const model = await loadLanguageModel(path!, { ...load, ...beside.load, signal });
      // Not part of the times.
      const promptIds = await untilAborted(
        model.tokenizer().then((tokenizer) => tokenizer.encode(prompt)),
        signal,
      );
      const promptTokens = promptIds.length;
      const ids: number[] = [];
      let whole = '';
      let finish: string | undefined;
      const started = performance.now();
      let first = started;
      for await (const token of model.generate(promptIds, { ...options, ...beside.run, signal })) {
        if (ids.length === 0) first = performance.now();
        ids.push(token.id);
        whole += token.text;
        finish = token.finish;
        if (!json) print(token.text);
      }
      const ended = performance.now();
      await model.close();
      const [promptSeconds, seconds] = [(first - started) / 1000, (ended - first) / 1000];
      const tokensPerSecond = ids.length > 1 ? (ids.length - 1) / seconds : null;
      if (json) {
        print(
          toJson({
            model: path,
            prompt,
            text: whole,
            ids,
            finish,
            promptTokens,
            promptSeconds,
            seconds,
            tokensPerSecond,
          }),
        );
        return;
      }
      print('\n');
      if (quiet || !process.stderr.isTTY) return;
      const rate = tokensPerSecond === null ? '' : `, ${formatNumber(tokensPerSecond)} tokens/s`;
      const full = finish === 'length' && promptTokens + ids.length > model.maxContext;
      const end = full ? ` The context of ${plural(model.maxContext, 'token')} is full (--max-context).` : '';
      say(
        `${plural(promptTokens, 'token')} read in ${formatSeconds(promptSeconds)}; ${plural(ids.length, 'token')} written${rate}.${end}`,
      );
    };
  },
});
