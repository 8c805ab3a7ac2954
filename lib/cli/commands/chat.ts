import { createInterface } from 'node:readline';
import { loadLanguageModel } from '../../runtime/load.js';
import type { ChatMessage } from '../../runtime/text/chat-template.js';
import { GENERATE_OPTIONS, resolveGenerateOptions } from '../../runtime/text/generate.js';
import { defineCommand } from '../command.js';
import { ACTIVATIONS, fromOptions, HEAD, MAX_CONTEXT, NO_PROGRESS, THREADS, text } from '../flags.js';
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
    maxContext: MAX_CONTEXT,
    threads: THREADS,
    quiet: NO_PROGRESS,
  },
  plan([path], { system, activations, head, maxContext, threads, quiet = false, ...options }) {
    resolveGenerateOptions(options); // before gigabytes are read
    return async ({ signal, print }) => {
      const model = await loadLanguageModel(path!, { activations, head, maxContext, threads, signal });
      const messages: ChatMessage[] = system === undefined ? [] : [{ role: 'system', content: system }];
      await model.chatPrompt([...messages, { role: 'user', content: 'Hello' }]); // without a template there is no conversation
      const asks = process.stdin.isTTY === true && process.stderr.isTTY === true && !quiet;
      const ask = () => asks && process.stderr.write('> ');
      if (asks) say('Ctrl-D ends the conversation.');
      const lines = createInterface({ input: process.stdin, signal });
      ask();
      for await (const line of lines) {
        if (line.trim() !== '') {
          messages.push({ role: 'user', content: line });
          let answer = '';
          for await (const token of model.chat(messages, { ...options, signal })) {
            answer += token.text;
            print(token.text);
          }
          print('\n');
          messages.push({ role: 'assistant', content: answer });
        }
        ask();
      }
      signal.throwIfAborted();
      await model.close();
    };
  },
});
