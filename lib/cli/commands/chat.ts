import { createInterface } from 'node:readline';
import { plural } from '../../messages/units.js';
import { loadLanguageModel } from '../../runtime/load.js';
import type { LanguageModel } from '../../runtime/model.js';
import type { ChatMessage } from '../../runtime/text/chat-template.js';
import { GENERATE_OPTIONS, resolveGenerateOptions } from '../../runtime/text/generate-options.js';
import { defineCommand } from '../command.js';
import {
  ACTIVATIONS,
  ADAPTER,
  besideWeights,
  CACHE_DTYPE,
  fromOptions,
  HEAD,
  MAX_CONTEXT,
  NO_PROGRESS,
  THREADS,
  text,
} from '../flags.js';
import { say } from '../process.js';

export const chat = defineCommand({
  name: 'chat',
  args: ['model'],
  summary: 'talk with a language model',
  details: [
    "Reads a line at a time from standard input, and streams the model's answers to standard output. Ctrl-D ends it. <model> is a folder or",
    'a GGUF file with a chat template; npm install @huggingface/tokenizers @huggingface/jinja',
  ].join('\n'),
  flags: {
    system: text('text', 'what the model is told before the conversation'),
    ...fromOptions(GENERATE_OPTIONS),
    activations: ACTIVATIONS,
    head: HEAD,
    cacheDtype: CACHE_DTYPE,
    adapter: ADAPTER,
    maxContext: MAX_CONTEXT,
    threads: THREADS,
    quiet: NO_PROGRESS,
  },
  plan([path], { system, activations, head, cacheDtype, adapter, maxContext, threads, quiet = false, ...options }) {
    const load = { activations, head, cacheDtype, maxContext, threads };
    const beside = besideWeights(adapter);
    resolveGenerateOptions(options); // before gigabytes are read
    return async ({ signal, print }) => {
      const model = await loadLanguageModel(path!, { ...load, ...beside.load, signal });
      let messages: readonly ChatMessage[] = system === undefined ? [] : [{ role: 'system', content: system }];
      await model.chatPrompt([...messages, { role: 'user', content: 'Hello' }]); // without a template there is no conversation
      const tell = (message: string) => quiet || say(message);
      const most = options.maxTokens ?? GENERATE_OPTIONS.maxTokens.default;
      const asks = process.stdin.isTTY === true && process.stderr.isTTY === true && !quiet;
      const ask = () => asks && process.stderr.write('> ');
      if (asks) say('Ctrl-D ends the conversation.');
      const lines = createInterface({ input: process.stdin, signal });
      ask();
      for await (const line of lines) {
        if (line.trim() !== '') {
          const said = [...messages, { role: 'user', content: line }];
          const { prompt, kept } = await promptThatFits(model, said, most);
          const dropped = said.length - kept.length;
          const context = `the context of ${model.maxContext} tokens (--max-context)`;
          if (prompt) {
            if (dropped > 0) tell(`${context} is full: forgot the oldest ${plural(dropped, 'message')}`);
            let [answer, count, finish] = ['', 0, ''];
            for await (const token of model.generate(prompt, { ...options, ...beside.run, signal })) {
              answer += token.text;
              count++;
              finish = token.finish ?? '';
              print(token.text);
            }
            print('\n');
            const limit = count === most ? `after ${plural(count, 'token')} (--max-tokens)` : `where ${context} ends`;
            if (finish === 'length') tell(`the answer is cut ${limit}`);
            messages = [...kept, { role: 'assistant', content: answer }];
          } else tell(`the message is left out: it does not fit ${context}`);
        }
        ask();
      }
      signal.throwIfAborted();
      await model.close();
    };
  },
});

/** What a conversation goes on with. */
interface Fitted {
  /** Undefined: not even the last message fits the context. */
  readonly prompt: readonly number[] | undefined;
  readonly kept: readonly ChatMessage[];
}

/** Leaves the oldest turns out of `messages`, but for what the system says, until there is room for an answer to the last. */
async function promptThatFits(
  model: LanguageModel,
  messages: readonly ChatMessage[],
  maxTokens: number,
): Promise<Fitted> {
  const { maxContext } = model;
  const room = Math.min(maxTokens, Math.floor(maxContext / 4));
  const first = messages[0]!.role === 'system' ? 1 : 0;
  const kept = [...messages];
  for (;;) {
    const prompt = await model.chatPrompt(kept);
    if (prompt.length + room <= maxContext) return { prompt, kept };
    // Turns go whole: templates may want them to alternate.
    const turn = kept.slice(first, -1).findIndex(({ role }, i) => i > 0 && role === 'user');
    const count = turn < 0 ? kept.length - 1 - first : turn;
    if (count === 0) return { prompt: prompt.length < maxContext ? prompt : undefined, kept };
    kept.splice(first, count);
  }
}
