import type { GeneratedToken } from '../runtime/text/generate.js';
import type { ToolCall } from '../runtime/text/tool-calls.js';

interface Likelihood {
  readonly id: number;
  readonly text: string;
  readonly logprob: number;
}

/** A token's likelihoods, with texts. */
export interface SpelledToken extends Likelihood {
  readonly top: readonly Likelihood[];
}

/** A call, by what the client answers it by. */
export interface IdentifiedCall extends ToolCall {
  readonly id: string;
  /** Its place among the calls of the text. */
  readonly place: number;
}

/** One text of an answer, or what of it has come since the last event. */
export interface Piece {
  readonly index: number;
  readonly text: string;
  readonly finish: GeneratedToken['finish'] | 'tool_calls' | null;
  /** Of tools. */
  readonly calls: readonly IdentifiedCall[];
  /** Where likelihoods are asked for. */
  readonly tokens: readonly SpelledToken[] | undefined;
  /** Characters of the text before the first of `tokens`. */
  readonly offset: number;
}

/** How answers of one kind of request look. */
export interface Shape {
  /** What ids begin with. */
  readonly prefix: string;
  readonly object: string;
  readonly chunkObject: string;
  readonly choice: (piece: Piece) => object;
  readonly chunk: (piece: Piece) => object;
  /** What a text's stream begins with. */
  readonly opening: ((index: number) => object) | undefined;
}

/** Tokens by their texts; of those with the same (parts of characters have) all but the likeliest by their ids. */
function byText(tokens: readonly Likelihood[]): Readonly<Record<string, number>> {
  const found = new Map<string, number>();
  for (const { id, text, logprob } of tokens) found.set(found.has(text) ? `token_id:${id}` : text, logprob);
  return Object.fromEntries(found);
}

const completionChoice = ({ index, text, finish, tokens, offset }: Piece) => {
  let at = offset;
  const logprobs = tokens && {
    tokens: tokens.map((token) => token.text),
    token_logprobs: tokens.map(({ logprob }) => logprob),
    top_logprobs: tokens.map(({ top }) => byText(top)),
    text_offset: tokens.map((token) => (at += token.text.length) - token.text.length),
  };
  return { text, index, logprobs: logprobs ?? null, finish_reason: finish };
};

/** `/v1/completions` */
export const COMPLETION: Shape = {
  prefix: 'cmpl',
  object: 'text_completion',
  chunkObject: 'text_completion',
  choice: completionChoice,
  chunk: completionChoice,
  opening: undefined,
};

const spelled = ({ text, logprob }: Likelihood) => ({
  token: text,
  logprob,
  bytes: text.includes('\uFFFD') ? null : [...Buffer.from(text)], // of a part of a character its text says nothing
});

const contentOf = (tokens: Piece['tokens']) =>
  tokens
    ? { content: tokens.map((token) => ({ ...spelled(token), top_logprobs: token.top.map(spelled) })), refusal: null }
    : null;

const toolCall = ({ id, name, arguments: given }: IdentifiedCall) => ({
  id,
  type: 'function',
  function: { name, arguments: given },
});

/** `/v1/chat/completions` */
export const CHAT: Shape = {
  prefix: 'chatcmpl',
  object: 'chat.completion',
  chunkObject: 'chat.completion.chunk',
  choice: ({ index, text, finish, tokens, calls }) => ({
    index,
    message: {
      ...{ role: 'assistant', content: calls.length > 0 && text === '' ? null : text, refusal: null },
      ...(calls.length > 0 && { tool_calls: calls.map(toolCall) }),
    },
    logprobs: contentOf(tokens),
    finish_reason: finish,
  }),
  chunk: ({ index, text, finish, tokens, calls }) => ({
    index,
    delta: {
      ...((text !== '' || !(finish || calls.length > 0)) && { content: text }),
      ...(calls.length > 0 && { tool_calls: calls.map((call) => ({ index: call.place, ...toolCall(call) })) }),
    },
    logprobs: contentOf(tokens),
    finish_reason: finish,
  }),
  opening: (index) => ({ index, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null }),
};
