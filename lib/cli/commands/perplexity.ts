import { isUtf8 } from 'node:buffer';
import { readWhole } from '../../files/io.js';
import { HqqError } from '../../messages/errors.js';
import { plain } from '../../messages/text.js';
import { plural } from '../../messages/units.js';
import { loadLanguageModel } from '../../runtime/load.js';
import { defineCommand, toJson } from '../command.js';
import { ACTIVATIONS, count, JSON_FLAG, MAX_CONTEXT, THREADS, text } from '../flags.js';

const WINDOW = 128;

/** Largest text. Every token is predicted: this much takes days. */
const MAX_TEXT_BYTES = 256 * 1024 * 1024;

export const perplexity = defineCommand({
  name: 'perplexity',
  args: ['model'],
  summary: 'measure how well a language model predicts a text',
  details: [
    'The text is cut into windows, each read without what came before it; each token is predicted from those before it in its',
    'window, and what is left at the end is dropped. Lower is better, and only comparable for one tokenizer, text and window.',
  ].join('\n'),
  flags: {
    text: text('file', 'the text to predict, as UTF-8', { required: true }),
    window: count('n', 'tokens of a window', [1, 1 << 24], WINDOW),
    activations: ACTIVATIONS,
    maxContext: MAX_CONTEXT,
    threads: THREADS,
    json: JSON_FLAG,
  },
  plan([path], { text: file, window = WINDOW, activations, maxContext, threads, json = false }) {
    return async ({ signal, print }) => {
      const content = decode(file!, await readWhole(file!, MAX_TEXT_BYTES));
      const model = await loadLanguageModel(path!, { activations, maxContext, threads, signal });
      const ids = (await model.tokenizer()).encode(content);
      const measured = await model.perplexity(ids, { window, signal });
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

/** The text of a file. Bytes that are none would be read as U+FFFD, and a figure come out that means nothing. */
function decode(file: string, bytes: Buffer): string {
  const text = bytes.toString('utf8');
  if (isUtf8(bytes)) return text;
  const again = Buffer.from(text, 'utf8');
  const other = bytes.findIndex((byte, i) => byte !== again[i]);
  const at = other < 0 ? bytes.length - 1 : other; // a file that ends in a part of U+FFFD itself
  const message = `${plain(file)}: expected text in UTF-8, which byte ${at} is not.`;
  throw new HqqError('ERR_INVALID_ARGUMENT', `${message} Convert the file (iconv -t UTF-8).`);
}
