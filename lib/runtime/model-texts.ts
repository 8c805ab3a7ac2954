import { untilAborted } from '../compute/signal.js';
import type { ChatMessage, ChatPromptOptions, ChatTemplate } from './text/chat-template.js';
import type { ChatTokenizer } from './text/tokenizer.js';

/** What opens a model's tokenizer and its chat template. */
interface TextParts {
  readonly tokenizer: () => Promise<ChatTokenizer>;
  readonly chatTemplate: () => Promise<ChatTemplate>;
}

/** What a model needs for texts, opened when it is asked for. What was missing may be there the next time. */
export class ModelTexts {
  readonly #parts: TextParts;
  #tokenizer: Promise<ChatTokenizer> | undefined;
  #template: Promise<ChatTemplate> | undefined;

  constructor(parts: TextParts) {
    this.#parts = parts;
  }

  /** Ids of a conversation. */
  async chatPrompt(messages: readonly ChatMessage[], options: ChatPromptOptions): Promise<number[]> {
    const [template, tokenizer] = await Promise.all([this.template(), this.tokenizer()]);
    const { signal, maxCharacters } = options;
    return untilAborted(tokenizer.encodeChat(template, messages, options, signal, maxCharacters), signal);
  }

  template(): Promise<ChatTemplate> {
    this.#template ??= this.#parts.chatTemplate().catch((error: unknown) => {
      this.#template = undefined;
      throw error;
    });
    return this.#template;
  }

  tokenizer(): Promise<ChatTokenizer> {
    if (this.#tokenizer) return this.#tokenizer;
    const opening = this.#parts.tokenizer();
    this.#tokenizer = opening;
    opening.catch(() => {
      if (this.#tokenizer === opening) this.#tokenizer = undefined;
    });
    return opening;
  }

  async close(): Promise<void> {
    const opened = await this.#tokenizer?.catch(() => undefined);
    await opened?.close();
  }
}
