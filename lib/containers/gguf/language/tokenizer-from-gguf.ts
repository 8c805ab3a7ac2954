import type { HqqError } from '../../../messages/errors.js';
import { quote } from '../../../messages/text.js';
import type { GgufEnvelope } from '../envelope.js';
import { PRE_TOKENIZERS } from './pre-tokenizers.js';
import { processorOf } from './template.js';
import { KIND, SPACE } from './tokenizer-to-gguf.js';

type Json = Readonly<Record<string, unknown>>;
type Refuse = (message: string) => HqqError;

/** What a GGUF file says of its tokenizer. */
interface Vocabulary {
  readonly tokens: readonly string[];
  readonly kinds: readonly number[];
}

const KEY = 'tokenizer.ggml';

/** Longest piece, in UTF-16 units. It is cut at every place; real ones have some dozens. */
const MAX_PIECE = 256;

/** tokenizer.json and tokenizer_config.json of a GGUF file. @throws {HqqError} `ERR_CHECKPOINT_CONTENT` for a kind that is not known */
export function tokenizerFiles(envelope: GgufEnvelope, refuse: Refuse): ReadonlyMap<string, string> {
  const value = (key: string) => envelope.scalar(`${KEY}.${key}`, refuse);
  const list = (key: string, of: 'string' | 'number') => envelope.list(`${KEY}.${key}`, of, refuse);
  const texts = (key: string) => needed(list(key, 'string'), key, 'string', refuse) as readonly string[];
  const tokens = texts('tokens');
  const kinds = (list('token_type', 'number') ?? tokens.map(() => KIND.normal)) as readonly number[];
  if (kinds.length !== tokens.length)
    throw refuse(`Expected ${KEY}.token_type to have ${tokens.length} numbers, got ${kinds.length}`);
  const vocabulary = { tokens, kinds };
  const kind = value('model');
  const parts =
    kind === 'gpt2'
      ? bytes(value, vocabulary, texts, refuse)
      : kind === 'llama'
        ? pieces(
            value,
            vocabulary,
            needed(list('scores', 'number'), 'scores', 'number', refuse) as readonly number[],
            refuse,
          )
        : undefined;
  if (parts === undefined) throw refuse(`Expected ${KEY}.model to be gpt2 or llama, got ${quote(String(kind))}`);
  const tokenizer = {
    ...{ version: '1.0', truncation: null, padding: null, added_tokens: addedTokens(vocabulary) },
    ...parts,
    post_processor: processor(value, tokens, kind === 'llama' || value('pre') === 'llama-bpe'),
  };
  const named = (name: string) => {
    const id = value(`${name}_token_id`);
    const token = typeof id === 'number' ? tokens[id] : undefined;
    return token === undefined ? {} : { [`${name === 'padding' ? 'pad' : name}_token`]: token };
  };
  const template = envelope.scalar('tokenizer.chat_template', refuse);
  const settings = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    ...{ ...named('bos'), ...named('eos'), ...named('padding') },
    ...(typeof template === 'string' ? { chat_template: template } : {}),
  };
  const json = (one: unknown) => `${JSON.stringify(one, null, 1)}\n`;
  return new Map([
    ['tokenizer.json', json(tokenizer)],
    ['tokenizer_config.json', json(settings)],
  ]);
}

function needed(value: readonly unknown[] | undefined, key: string, of: string, refuse: Refuse): readonly unknown[] {
  if (value !== undefined) return value;
  throw refuse(`Expected ${KEY}.${key} to be a list of ${of}s, got none`);
}

type Value = (key: string) => unknown;

/** Words of bytes, which are merged by rank. */
function bytes(value: Value, vocabulary: Vocabulary, texts: (key: string) => readonly string[], refuse: Refuse): Json {
  const label = value('pre');
  const found = PRE_TOKENIZERS.find((one) => one.label === label || one.aliases.includes(String(label)));
  if (found === undefined) {
    const known = PRE_TOKENIZERS.map((one) => one.label).join(', ');
    throw refuse(
      `Expected ${KEY}.pre to be one of ${known}, got ${label === undefined ? 'none' : quote(String(label))}`,
    );
  }
  const merges = texts('merges').map((merge) => {
    const at = merge.indexOf(' ', 1);
    if (at < 1) throw refuse(`Expected every merge to be of two pieces, got ${quote(merge)}`);
    return [merge.slice(0, at), merge.slice(at + 1)];
  });
  return {
    ...{ normalizer: found.normalizer, pre_tokenizer: found.json },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: modelOf(vocabulary, merges, { ignore_merges: found.ignoreMerges, byte_fallback: false, fuse_unk: false }),
  };
}

/** Pieces, of which two that make one of the best score are merged first. */
function pieces(value: Value, vocabulary: Vocabulary, scores: readonly number[], refuse: Refuse): Json {
  const { tokens, kinds } = vocabulary;
  if (scores.length !== tokens.length)
    throw refuse(`Expected ${KEY}.scores to have ${tokens.length} numbers, got ${scores.length}`);
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const lengths = new Set(tokens.map(({ length }) => length)); // few: most cuts need no look at the text
  const merges: { readonly pair: readonly [string, string]; readonly score: number; readonly rank: number }[] = [];
  for (const [id, token] of tokens.entries()) {
    if (kinds[id] !== KIND.normal) continue;
    if (token.length > MAX_PIECE)
      throw refuse(`Expected pieces of at most ${MAX_PIECE} characters in ${KEY}.tokens, got one of ${token.length}`);
    for (let at = 1; at < token.length; at++) {
      if (!lengths.has(at) || !lengths.has(token.length - at)) continue;
      const left = ids.get(token.slice(0, at)); // none for half of a surrogate pair, which no token ends with
      const right = left === undefined ? undefined : ids.get(token.slice(at));
      if (left === undefined || right === undefined) continue;
      merges.push({ pair: [tokens[left]!, tokens[right]!], score: scores[id]!, rank: left + right });
    }
  }
  merges.sort((a, b) => b.score - a.score || a.rank - b.rank);
  const replace = { type: 'Replace', pattern: { String: ' ' }, content: SPACE };
  const prefix = value('add_space_prefix') !== false;
  const unknown = kinds.indexOf(KIND.unknown);
  return {
    normalizer: prefix ? { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: SPACE }, replace] } : replace,
    pre_tokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: SPACE }, content: ' ' },
        ...[{ type: 'ByteFallback' }, { type: 'Fuse' }],
        ...(prefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    model: modelOf(
      vocabulary,
      merges.map(({ pair }) => pair),
      {
        ...{ byte_fallback: true, fuse_unk: true, unk_token: unknown < 0 ? null : tokens[unknown]! },
      },
    ),
  };
}

function modelOf({ tokens }: Vocabulary, merges: readonly (readonly string[])[], more: Json): Json {
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const none = { dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null };
  return { type: 'BPE', ...none, ...more, vocab, merges };
}

/** Tokens that are found in a text before it is cut. */
function addedTokens({ tokens, kinds }: Vocabulary): readonly Json[] {
  return tokens.flatMap((content, id) => {
    const special = kinds[id] === KIND.control || kinds[id] === KIND.unknown;
    if (!special && kinds[id] !== KIND.userDefined) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
}

/** @param begins Whether texts begin with a token where the file does not say. */
function processor(value: Value, tokens: readonly string[], begins: boolean): Json | null {
  const token = (name: string, fallback: boolean) => {
    const id = value(`${name}_token_id`);
    return (value(`add_${name}_token`) ?? fallback) === true && typeof id === 'number' ? tokens[id] : undefined;
  };
  return processorOf({ before: token('bos', begins), after: token('eos', false) }, (one) => tokens.indexOf(one));
}
