import { untilAborted } from '../../compute/signal.js';
import { plural } from '../../messages/units.js';
import { contextOf, loadLanguageModel } from '../../runtime/load.js';
import { MAX_CONTEXT } from '../../runtime/load-options.js';
import { checkWindow, WINDOW } from '../../runtime/perplexity.js';
import { defineCommand, toJson } from '../command.js';
import {
  ACTIVATIONS,
  ADAPTER,
  besideWeights,
  CACHE_DTYPE,
  MAX_CONTEXT as CONTEXT_FLAG,
  count,
  HEAD,
  JSON_FLAG,
  NO_PROGRESS,
  THREADS,
  text,
  UsageError,
} from '../flags.js';
import { readTextFile } from '../input.js';
import { withProgress } from '../show/progress.js';

export const perplexity = defineCommand({
  name: 'perplexity',
  args: ['model'],
  summary: 'measure how well a language model predicts a text',
  details: [
    'The text is cut into windows, each read without what came before it; each token is predicted from those before it in its',
    'window, and what is left at the end is dropped. A window of n scores n tokens, and reads one more in front of them. Lower is',
    'better, and only comparable for one tokenizer, text and window.',
    '<model> is a folder that hqq/runtime runs with its tokenizer.json; the package @huggingface/tokenizers must be installed:',
    'npm install @huggingface/tokenizers',
  ].join('\n'),
  flags: {
    text: text('file', 'the text to predict, as UTF-8; - is standard input', { required: true }),
    window: {
      ...count('n', 'tokens that a window scores', [1, MAX_CONTEXT], WINDOW),
      expected: "an integer from 1 to the model's context",
    },
    activations: ACTIVATIONS,
    head: HEAD,
    cacheDtype: CACHE_DTYPE,
    adapter: ADAPTER,
    maxContext: CONTEXT_FLAG,
    threads: THREADS,
    json: JSON_FLAG,
    quiet: NO_PROGRESS,
  },
  plan(
    [path],
    {
      text: file,
      window = WINDOW,
      activations,
      head,
      cacheDtype,
      adapter,
      maxContext,
      threads,
      json = false,
      quiet = false,
    },
  ) {
    const load = { activations, head, cacheDtype, maxContext, threads };
    const beside = besideWeights(adapter);
    if (maxContext !== undefined && window > maxContext) {
      const message = `Expected --window to be an integer in [1, ${maxContext}], got ${window}`;
      throw new UsageError(`${message}. --max-context sets the limit.`);
    }
    return async ({ signal, print }) => {
      checkWindow(window, maxContext ?? (await contextOf(path!))); // before gigabytes are read
      const content = await readTextFile(file!, { signal, quiet });
      const model = await loadLanguageModel(path!, { ...load, ...beside.load, signal });
      const ids = await untilAborted(
        model.tokenizer().then((tokenizer) => tokenizer.encode(content)),
        signal,
      );
      const measured = await withProgress('measuring', !json && !quiet, (update) =>
        model.perplexity(ids, {
          ...beside.run,
          window,
          signal,
          onProgress: ({ tokensDone, tokensTotal }) => update({ done: tokensDone, total: tokensTotal, unit: 'tokens' }),
        }),
      );
      await model.close();
      if (json) print(toJson({ model: path, text: file, window, ...measured }));
      else {
        const { perplexity: value, nll, tokens } = measured;
        print(
          `perplexity ${value.toFixed(4)}  (${nll.toFixed(4)} nats a token, ${plural(tokens, 'token')} in windows of ${window})\n`,
        );
      }
    };
  },
});
